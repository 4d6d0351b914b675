# `launch serve` under load.
add_executable(serve_load ${CMAKE_CURRENT_LIST_DIR}/serve_load.cpp ${CMAKE_CURRENT_LIST_DIR}/support/http_load.cpp ${CMAKE_CURRENT_LIST_DIR}/support/run_files.cpp)
target_link_libraries(serve_load PRIVATE bench_support)
add_dependencies(serve_load launch worker)
