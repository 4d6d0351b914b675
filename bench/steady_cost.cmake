# What supervision costs a run that nothing disturbs.
add_executable(steady_cost ${CMAKE_CURRENT_LIST_DIR}/steady_cost.cpp ${CMAKE_CURRENT_LIST_DIR}/support/open_run.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/processes.cpp)
target_link_libraries(steady_cost PRIVATE bench_support)
add_dependencies(steady_cost launch worker)
