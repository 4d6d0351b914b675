find_package(rapidcheck CONFIG REQUIRED)
target_link_libraries(common_test PRIVATE rapidcheck)
