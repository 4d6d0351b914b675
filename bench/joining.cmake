# A node that comes while a run trains.
add_executable(joining ${CMAKE_CURRENT_LIST_DIR}/joining.cpp ${CMAKE_CURRENT_LIST_DIR}/support/open_run.cpp)
target_link_libraries(joining PRIVATE bench_support)
add_dependencies(joining launch worker)
