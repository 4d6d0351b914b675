add_executable(brute_force ${CMAKE_CURRENT_LIST_DIR}/brute_force.cpp)
target_link_libraries(brute_force PRIVATE bench_support planner)
