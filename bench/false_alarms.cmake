# Steps that vary, and nothing that fails.
add_executable(false_alarms ${CMAKE_CURRENT_LIST_DIR}/false_alarms.cpp ${CMAKE_CURRENT_LIST_DIR}/support/open_run.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/processes.cpp)
target_link_libraries(false_alarms PRIVATE bench_support)
add_dependencies(false_alarms launch worker)
