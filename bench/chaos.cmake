# Runs that are disturbed on purpose: what is lost, how soon they go on. `rank_faults` is loaded into their processes.
add_library(bench_faults STATIC ${CMAKE_CURRENT_LIST_DIR}/support/disturbed_run.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/disturber.cpp ${CMAKE_CURRENT_LIST_DIR}/support/disturber_quiet.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/fault_kinds.cpp ${CMAKE_CURRENT_LIST_DIR}/support/node_runs.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/processes.cpp ${CMAKE_CURRENT_LIST_DIR}/support/run_files.cpp)
target_link_libraries(bench_faults PUBLIC bench_support)
add_library(rank_faults MODULE ${CMAKE_CURRENT_LIST_DIR}/support/rank_faults.cpp)
target_include_directories(rank_faults PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(rank_faults PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(rank_faults PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
add_dependencies(bench_faults launch worker rank_faults)
foreach(program chaos soak)
  add_executable(${program} ${CMAKE_CURRENT_LIST_DIR}/${program}.cpp)
  target_link_libraries(${program} PRIVATE bench_faults)
endforeach()
