add_executable(collectives ${CMAKE_CURRENT_SOURCE_DIR}/collectives.cpp)
target_link_libraries(collectives PRIVATE bench_support collective)
