# The two that hold libtorch: speed against PyTorch eager, and random plans against one rank.
add_executable(engine ${CMAKE_CURRENT_SOURCE_DIR}/engine.cpp)
target_link_libraries(engine PRIVATE bench_support worker_engine)
add_executable(parity ${CMAKE_CURRENT_SOURCE_DIR}/parity.cpp)
target_link_libraries(parity PRIVATE bench_support worker_engine)
