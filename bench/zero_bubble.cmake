# H1 beside 1F1B under quotas.
add_executable(zero_bubble ${CMAKE_CURRENT_LIST_DIR}/zero_bubble.cpp)
target_link_libraries(zero_bubble PRIVATE bench_hand_made)
add_dependencies(zero_bubble launch worker)
