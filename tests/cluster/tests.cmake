add_library(fake_nvml MODULE ${CMAKE_CURRENT_SOURCE_DIR}/cluster/fake_nvml.cpp)
target_compile_definitions(cluster_test PRIVATE COX_FAKE_NVML="$<TARGET_FILE:fake_nvml>")
add_dependencies(cluster_test fake_nvml)
