# What a user asks of a plan, answered by `launch plan` and `launch explain`: the outputs and docs/questions.md are recorded.
add_test(NAME questions COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python -B ${CMAKE_CURRENT_LIST_DIR}/questions_test.py)
set_tests_properties(questions PROPERTIES LABELS "golden;slow" TIMEOUT 300 ENVIRONMENT "COX_BINARY_DIR=${PROJECT_BINARY_DIR}")
