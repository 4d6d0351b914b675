add_library(bench_measured STATIC ${CMAKE_CURRENT_LIST_DIR}/support/csv.cpp ${CMAKE_CURRENT_LIST_DIR}/support/measured.cpp
  ${CMAKE_CURRENT_LIST_DIR}/support/measured_machine.cpp)
target_include_directories(bench_measured PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(bench_measured PUBLIC cost_model)

add_executable(cost_accuracy ${CMAKE_CURRENT_LIST_DIR}/cost_accuracy.cpp)
target_link_libraries(cost_accuracy PRIVATE bench_support bench_measured)
