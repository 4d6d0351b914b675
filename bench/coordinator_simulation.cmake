# The coordinator in simulated time, under faults; the simulation is a library that tests/simulation uses too.
add_library(bench_coordinator STATIC ${CMAKE_CURRENT_LIST_DIR}/support/coordinator_invariants.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/coordinator_world.cpp ${CMAKE_CURRENT_LIST_DIR}/support/fault_script.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/heartbeat_round.cpp ${CMAKE_CURRENT_LIST_DIR}/support/simulated_agent.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/simulated_coordinator.cpp ${CMAKE_CURRENT_LIST_DIR}/support/simulated_network.cpp)
target_include_directories(bench_coordinator PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(bench_coordinator PUBLIC launcher)
add_executable(coordinator_simulation ${CMAKE_CURRENT_LIST_DIR}/coordinator_simulation.cpp)
target_link_libraries(coordinator_simulation PRIVATE bench_coordinator bench_support)
