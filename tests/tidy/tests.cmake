# The house rules on this tree, on the built `launch`, and on planted violations of each rule.
find_program(COX_PYTHON NAMES python3 PATHS /usr/bin NO_DEFAULT_PATH)
find_program(COX_PYTHON NAMES python3 REQUIRED)
add_test(NAME tidy COMMAND ${COX_PYTHON} ${PROJECT_SOURCE_DIR}/tests/tidy/tidy.py --launch $<TARGET_FILE:launch>)
add_test(NAME tidy_self_test COMMAND ${COX_PYTHON} ${PROJECT_SOURCE_DIR}/tests/tidy/tidy_test.py)
set_tests_properties(tidy tidy_self_test PROPERTIES LABELS docs TIMEOUT 60
  ENVIRONMENT "COX_TORCH_DIR=${COX_TORCH_DIR};PYTHONDONTWRITEBYTECODE=1")
