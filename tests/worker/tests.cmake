# The engine's tests hold libtorch; their fixtures come from tests/model/make_fixtures.py and, beside them, make_eager.py and
# make_float16.py.
file(GLOB cox_engine_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/worker/engine_*_test.cpp)
add_executable(worker_engine_test ${cox_engine_tests})
target_link_libraries(worker_engine_test PRIVATE worker_engine cost_model test_support cox_libtorch)
target_compile_definitions(worker_engine_test PRIVATE COX_FIXTURES="${PROJECT_BINARY_DIR}/fixtures")
add_test(NAME make_engine_fixtures
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/worker/make_eager.py ${PROJECT_BINARY_DIR}/fixtures)
set_tests_properties(make_engine_fixtures PROPERTIES FIXTURES_REQUIRED model_fixtures FIXTURES_SETUP engine_fixtures LABELS torch
  TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")
add_test(NAME make_float16_fixtures
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/worker/make_float16.py ${PROJECT_BINARY_DIR}/fixtures)
set_tests_properties(make_float16_fixtures PROPERTIES FIXTURES_REQUIRED "model_fixtures;engine_fixtures"
  FIXTURES_SETUP float16_fixtures LABELS torch TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")
add_test(NAME make_schedule_fixtures
  COMMAND ${PROJECT_SOURCE_DIR}/.venv/bin/python ${PROJECT_SOURCE_DIR}/tests/plan/make_schedule_csvs.py
    ${PROJECT_BINARY_DIR}/fixtures/schedules)
set_tests_properties(make_schedule_fixtures PROPERTIES FIXTURES_SETUP schedule_fixtures LABELS torch TIMEOUT 300)
# Peaks, rank by rank, apart from the rest: neither then comes near its limit.
add_test(NAME worker_engine COMMAND worker_engine_test -w NoAssertions ~[memory])
add_test(NAME worker_memory COMMAND worker_engine_test -w NoAssertions [memory])
set_tests_properties(worker_engine worker_memory PROPERTIES FIXTURES_REQUIRED
  "model_fixtures;engine_fixtures;float16_fixtures;schedule_fixtures" LABELS torch TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")

# Kernels of the engine alone: no fixtures, groups of ranks are threads.
file(GLOB cox_kernel_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/worker/kernel_*_test.cpp)
add_executable(worker_kernels_test ${cox_kernel_tests})
target_link_libraries(worker_kernels_test PRIVATE worker_engine test_support cox_libtorch)
add_test(NAME worker_kernels COMMAND worker_kernels_test -w NoAssertions)
set_tests_properties(worker_kernels PROPERTIES LABELS torch TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")
