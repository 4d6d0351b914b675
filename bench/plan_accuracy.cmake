# Random plans with real processes, predicted beside measured.
add_executable(plan_accuracy ${CMAKE_CURRENT_SOURCE_DIR}/plan_accuracy.cpp
               ${CMAKE_CURRENT_SOURCE_DIR}/support/machine_pace.cpp)
target_link_libraries(plan_accuracy PRIVATE bench_plans cost_model)
add_dependencies(plan_accuracy launch worker)
