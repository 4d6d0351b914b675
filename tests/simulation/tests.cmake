# The coordinator in simulated time (bench/support/coordinator_world.h): a bounded number of faults.
file(GLOB cox_simulation_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_test.cpp)
add_executable(simulation_test ${cox_simulation_tests})
target_link_libraries(simulation_test PRIVATE bench_coordinator test_support)
add_test(NAME simulation COMMAND simulation_test -w NoAssertions)
set_tests_properties(simulation PROPERTIES LABELS simulation TIMEOUT 60)
