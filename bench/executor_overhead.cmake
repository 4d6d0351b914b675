# The executor alone; plans from the tests' builders.
add_executable(executor_overhead ${CMAKE_CURRENT_LIST_DIR}/executor_overhead.cpp
               ${PROJECT_SOURCE_DIR}/tests/support/graph_builder.cpp ${PROJECT_SOURCE_DIR}/tests/support/plan_builder.cpp)
target_link_libraries(executor_overhead PRIVATE bench_support executor)
