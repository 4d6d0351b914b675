# What checkpoints cost a run that nothing disturbs.
add_executable(checkpoint_stall ${CMAKE_CURRENT_LIST_DIR}/checkpoint_stall.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/open_run.cpp)
target_link_libraries(checkpoint_stall PRIVATE bench_support)
add_dependencies(checkpoint_stall launch worker)
