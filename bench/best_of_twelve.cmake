# Runs launch and worker, but does not build them: --programs names those of another build.
add_executable(best_of_twelve ${CMAKE_CURRENT_LIST_DIR}/best_of_twelve.cpp)
target_link_libraries(best_of_twelve PRIVATE bench_support)
