# What `make demo` does, short enough for every test run: the same commands without make.
add_test(NAME demo_20_steps
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/demo/demo_test.py
          --source ${PROJECT_SOURCE_DIR} --launch $<TARGET_FILE:launch>)
set_tests_properties(demo_20_steps PROPERTIES LABELS "example;process;torch" TIMEOUT 280 RUN_SERIAL ON
  ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)

add_test(NAME backends_agree
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/demo/backend_test.py
          --launch $<TARGET_FILE:launch> --models ${PROJECT_BINARY_DIR}/fixtures/models)
set_tests_properties(backends_agree PROPERTIES FIXTURES_REQUIRED family_models LABELS "process;mpi" TIMEOUT 280 RUN_SERIAL ON SKIP_RETURN_CODE 77
  ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)

add_test(NAME trace_steps
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/demo/trace_test.py
          --launch $<TARGET_FILE:launch>)
set_tests_properties(trace_steps PROPERTIES LABELS "process;torch" TIMEOUT 280 RUN_SERIAL ON
  ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)

add_test(NAME resume
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/demo/resume_test.py
          --launch $<TARGET_FILE:launch>)
set_tests_properties(resume PROPERTIES LABELS "process;torch" TIMEOUT 400 RUN_SERIAL ON
  ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
