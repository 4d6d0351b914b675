# `launch serve`, asked by real clients; every answer is held against the document that it serves.
foreach(part serve jobs nodes)
  add_test(NAME ${part} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python -B ${CMAKE_CURRENT_LIST_DIR}/${part}_test.py)
  set_tests_properties(${part} PROPERTIES LABELS "process" TIMEOUT 300 FIXTURES_REQUIRED model_fixtures
    ENVIRONMENT "COX_BINARY_DIR=${PROJECT_BINARY_DIR}")
endforeach()
