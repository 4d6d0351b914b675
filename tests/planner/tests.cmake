# planner/problems: published planning problems, by hand-solved and brute-forced instances.
file(GLOB cox_problem_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/problems/*_test.cpp)
if(cox_problem_tests)
  add_executable(planner_problems_test ${cox_problem_tests})
  target_link_libraries(planner_problems_test PRIVATE planner test_support)
  add_test(NAME planner_problems COMMAND planner_problems_test -w NoAssertions)
  set_tests_properties(planner_problems PROPERTIES LABELS unit TIMEOUT 120)
endif()

set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/scale_test.cpp TARGET_DIRECTORY planner_test
                            PROPERTIES COMPILE_DEFINITIONS COX_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
