# What bench programs share and users rely on: reading tables that others wrote.
file(GLOB cox_bench_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_test.cpp)
add_executable(bench_test ${cox_bench_tests})
target_link_libraries(bench_test PRIVATE bench_measured bench_plans bench_faults test_support)
add_test(NAME bench COMMAND bench_test -w NoAssertions)
set_tests_properties(bench PROPERTIES LABELS unit TIMEOUT 60)

# Random plans of five families of models against one rank; `parity` without a number of plans takes many more.
set(cox_family_models)
foreach(name gpt2 llama bert vit moe moe_balance)
  list(APPEND cox_family_models ${PROJECT_BINARY_DIR}/fixtures/models/${name}.pt2)
endforeach()
add_test(NAME parity COMMAND parity ${cox_family_models} --plans 24 --seed 5)
set_tests_properties(parity PROPERTIES FIXTURES_REQUIRED family_models LABELS "differential;torch" TIMEOUT 280
  ENVIRONMENT "OMP_NUM_THREADS=1")

# A soak's first faults, on one node: whoever may not make namespaces runs it too. bench/soak.cpp, `make soak`.
add_test(NAME soak COMMAND soak --nodes 1 --faults 8 --every 2 --steps 400)
set_tests_properties(soak PROPERTIES LABELS "process;slow" TIMEOUT 300 ENVIRONMENT "OMP_NUM_THREADS=1")
