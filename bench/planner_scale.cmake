add_executable(planner_scale ${CMAKE_CURRENT_LIST_DIR}/planner_scale.cpp)
target_link_libraries(planner_scale PRIVATE bench_support planner)
target_compile_definitions(planner_scale PRIVATE COX_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
