find_package(rapidcheck CONFIG REQUIRED)
target_link_libraries(plan_test PRIVATE rapidcheck)

# Sharding rules: pure tests beside the proof, which runs operators on parts and holds libtorch.
file(GLOB cox_rule_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/plan/rules/*.cpp)
add_executable(plan_rules_test ${cox_rule_tests})
target_link_libraries(plan_rules_test PRIVATE plan_rules worker_engine test_support cox_libtorch)
target_compile_definitions(plan_rules_test PRIVATE COX_FIXTURES="${PROJECT_BINARY_DIR}/fixtures")
add_test(NAME plan_rules COMMAND plan_rules_test -w NoAssertions)
set_tests_properties(plan_rules PROPERTIES FIXTURES_REQUIRED model_fixtures LABELS differential TIMEOUT 300
  ENVIRONMENT "OMP_NUM_THREADS=1")

# Layouts: all positions of a mesh in lockstep against the whole graph; holds libtorch.
file(GLOB cox_layout_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/plan/layout/*.cpp)
add_executable(plan_layout_test ${cox_layout_tests})
target_link_libraries(plan_layout_test PRIVATE plan_layout worker_engine test_support cox_libtorch)
target_compile_definitions(plan_layout_test PRIVATE COX_FIXTURES="${PROJECT_BINARY_DIR}/fixtures")
add_test(NAME plan_layout COMMAND plan_layout_test -w NoAssertions)
set_tests_properties(plan_layout PROPERTIES FIXTURES_REQUIRED model_fixtures LABELS differential TIMEOUT 300
  ENVIRONMENT "OMP_NUM_THREADS=1")
