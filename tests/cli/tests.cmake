# The real `launch` on good and bad input: exit codes, what it says, that nothing is left behind.
foreach(part cli exchange replanning)
  add_test(NAME ${part} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python -B ${CMAKE_CURRENT_LIST_DIR}/${part}_test.py)
  set_tests_properties(${part} PROPERTIES LABELS "process;golden" TIMEOUT 120 FIXTURES_REQUIRED model_fixtures
    ENVIRONMENT "COX_BINARY_DIR=${PROJECT_BINARY_DIR}")
endforeach()
