add_executable(contests ${CMAKE_CURRENT_LIST_DIR}/contests.cpp)
target_link_libraries(contests PRIVATE bench_support planner)
