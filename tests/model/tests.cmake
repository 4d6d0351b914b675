# Archives for the tests, made by PyTorch at test time (see make_fixtures.py); other folders' tests may ask for them
# with FIXTURES_REQUIRED model_fixtures.
add_test(NAME make_model_fixtures
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/model/make_fixtures.py ${PROJECT_BINARY_DIR}/fixtures)
set_tests_properties(make_model_fixtures PROPERTIES FIXTURES_SETUP model_fixtures LABELS unit TIMEOUT 300
  ENVIRONMENT "OMP_NUM_THREADS=1")
if(TEST model)
  set_tests_properties(model PROPERTIES FIXTURES_REQUIRED model_fixtures)
endif()
