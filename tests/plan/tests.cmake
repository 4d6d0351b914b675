find_package(rapidcheck CONFIG REQUIRED)
target_link_libraries(plan_test PRIVATE rapidcheck)
