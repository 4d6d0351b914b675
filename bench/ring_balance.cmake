# The slowest member of causal ring attention; members are the tests' threads.
add_executable(ring_balance ${CMAKE_CURRENT_LIST_DIR}/ring_balance.cpp)
target_link_libraries(ring_balance PRIVATE bench_support worker_engine plan_layout cox_libtorch)
