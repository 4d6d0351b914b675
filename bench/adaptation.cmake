# Runs that begin with files that are wrong, and find out.
add_executable(adaptation ${CMAKE_CURRENT_LIST_DIR}/adaptation.cpp)
target_link_libraries(adaptation PRIVATE bench_support)
add_dependencies(adaptation launch worker)
