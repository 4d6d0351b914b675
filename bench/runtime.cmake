# Plans made by hand, for the programs that pair them.
add_library(bench_hand_made STATIC ${CMAKE_CURRENT_LIST_DIR}/support/hand_made.cpp)
target_link_libraries(bench_hand_made PUBLIC bench_support common model cluster plan)
# Beside PyTorch's own distributed training.
add_library(tensor_memory MODULE ${CMAKE_CURRENT_LIST_DIR}/peers/tensor_memory.cpp
  ${PROJECT_SOURCE_DIR}/worker/engine/caching_allocator.cpp)
target_include_directories(tensor_memory PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(tensor_memory PRIVATE common cox_libtorch)
set_target_properties(tensor_memory PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
add_executable(runtime ${CMAKE_CURRENT_LIST_DIR}/runtime.cpp)
target_link_libraries(runtime PRIVATE bench_hand_made)
add_dependencies(runtime launch worker tensor_memory)
