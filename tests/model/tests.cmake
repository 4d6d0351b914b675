# Archives for the tests, made by PyTorch at test time (make_fixtures.py, make_expectations.py); other folders' tests may ask
# for them with FIXTURES_REQUIRED model_fixtures.
foreach(maker make_fixtures make_expectations)
  if(EXISTS ${PROJECT_SOURCE_DIR}/tests/model/${maker}.py)
    add_test(NAME model_${maker} COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/model/${maker}.py
      ${PROJECT_BINARY_DIR}/fixtures)
    set_tests_properties(model_${maker} PROPERTIES FIXTURES_SETUP model_fixtures LABELS unit TIMEOUT 300
      ENVIRONMENT "OMP_NUM_THREADS=1")
  endif()
endforeach()
# Five families of models and data for them, for tests that train them.
add_test(NAME model_make_models COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/model/make_models.py
  ${PROJECT_BINARY_DIR}/fixtures/models)
set_tests_properties(model_make_models PROPERTIES FIXTURES_SETUP family_models LABELS unit TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")
if(TEST model)
  set_tests_properties(model PROPERTIES FIXTURES_REQUIRED model_fixtures)
endif()

# The graphs that our reader makes, run in PyTorch operator by operator and compared with eager.
add_executable(dump_graph ${PROJECT_SOURCE_DIR}/tests/model/dump_graph.cpp)
target_link_libraries(dump_graph PRIVATE model)
set_target_properties(dump_graph PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
add_test(NAME model_graphs_run COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/model/run_graph.py
  $<TARGET_FILE:dump_graph> ${PROJECT_BINARY_DIR}/fixtures)
set_tests_properties(model_graphs_run PROPERTIES FIXTURES_REQUIRED model_fixtures LABELS differential TIMEOUT 120
  ENVIRONMENT "OMP_NUM_THREADS=1")

# The graphs that our builders make of a config.json, with transformers' weights, compared with transformers' model.
add_test(NAME model_configs_run COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/model/run_config.py
  $<TARGET_FILE:dump_graph>)
set_tests_properties(model_configs_run PROPERTIES LABELS differential TIMEOUT 120 ENVIRONMENT "OMP_NUM_THREADS=1")

add_test(NAME model_export COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/model/export_test.py)
set_tests_properties(model_export PROPERTIES LABELS unit TIMEOUT 120 ENVIRONMENT "OMP_NUM_THREADS=1")
