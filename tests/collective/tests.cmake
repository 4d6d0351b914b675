# Ranks as threads or processes and the conformance cases, shared by the host suite and the MPI program.
add_library(collective_conformance STATIC ${CMAKE_CURRENT_SOURCE_DIR}/collective/conformance.cpp ${CMAKE_CURRENT_SOURCE_DIR}/collective/ranks.cpp)
target_link_libraries(collective_conformance PUBLIC collective)
if(TARGET collective_test)
  target_link_libraries(collective_test PRIVATE collective_conformance)
endif()
