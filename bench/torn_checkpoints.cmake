# What damage to a checkpoint goes unseen: none may.
add_executable(torn_checkpoints ${CMAKE_CURRENT_LIST_DIR}/torn_checkpoints.cpp)
target_link_libraries(torn_checkpoints PRIVATE bench_support checkpoint)
add_dependencies(torn_checkpoints launch worker)
