# Runs that are disturbed on purpose: what is lost, how soon they go on.
add_executable(chaos ${CMAKE_CURRENT_LIST_DIR}/chaos.cpp)
target_link_libraries(chaos PRIVATE bench_support)
add_dependencies(chaos launch worker)
