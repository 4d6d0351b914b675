add_executable(planner_speed ${CMAKE_CURRENT_LIST_DIR}/planner_speed.cpp)
target_link_libraries(planner_speed PRIVATE bench_support planner)
target_compile_definitions(planner_speed PRIVATE COX_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
