# What bench programs share and users rely on: reading tables that others wrote.
add_executable(bench_test ${CMAKE_CURRENT_LIST_DIR}/csv_test.cpp ${CMAKE_CURRENT_LIST_DIR}/measured_test.cpp)
target_link_libraries(bench_test PRIVATE bench_measured test_support)
add_test(NAME bench COMMAND bench_test -w NoAssertions)
set_tests_properties(bench PROPERTIES LABELS unit TIMEOUT 60)
