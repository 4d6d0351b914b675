# launcher/job: the job file's walker and its values.
add_executable(job_test ${CMAKE_CURRENT_LIST_DIR}/job_test.cpp ${CMAKE_CURRENT_LIST_DIR}/job_data_test.cpp ${CMAKE_CURRENT_LIST_DIR}/hostfile_test.cpp)
target_link_libraries(job_test PRIVATE launcher test_support)
add_test(NAME job COMMAND job_test -w NoAssertions)
set_tests_properties(job PROPERTIES LABELS unit TIMEOUT 60)
