# What of a slow link's transfers is hidden behind compute.
add_executable(overlap ${CMAKE_CURRENT_LIST_DIR}/overlap.cpp)
target_link_libraries(overlap PRIVATE bench_hand_made)
add_dependencies(overlap launch worker)
