# The memory model against the allocator: holds libtorch and the cost model.
add_executable(memory_truth ${CMAKE_CURRENT_LIST_DIR}/memory_truth.cpp)
target_link_libraries(memory_truth PRIVATE bench_plans worker_engine cost_model)
