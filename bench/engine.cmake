# Those that hold libtorch: speed against PyTorch eager, and random plans against one rank.
add_library(bench_plans STATIC ${CMAKE_CURRENT_SOURCE_DIR}/support/random_plans.cpp
  ${CMAKE_CURRENT_SOURCE_DIR}/support/launched_plans.cpp)
target_link_libraries(bench_plans PUBLIC bench_support plan)
add_executable(engine ${CMAKE_CURRENT_SOURCE_DIR}/engine.cpp)
target_link_libraries(engine PRIVATE bench_support worker_engine)
add_executable(parity ${CMAKE_CURRENT_SOURCE_DIR}/parity.cpp ${CMAKE_CURRENT_SOURCE_DIR}/support/thread_ranks.cpp)
target_link_libraries(parity PRIVATE bench_plans worker_engine)
