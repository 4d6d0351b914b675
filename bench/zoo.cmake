# What the sharding rules cover.
add_executable(zoo ${CMAKE_CURRENT_SOURCE_DIR}/zoo.cpp)
target_link_libraries(zoo PRIVATE bench_support plan_rules)
