# `launch serve`, asked by real clients; every answer is held against the document that it serves.
add_test(NAME serve COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python -B ${CMAKE_CURRENT_LIST_DIR}/serve_test.py)
set_tests_properties(serve PROPERTIES LABELS "process" TIMEOUT 300 FIXTURES_REQUIRED model_fixtures
  ENVIRONMENT "COX_BINARY_DIR=${PROJECT_BINARY_DIR}")
