add_executable(fake_worker ${CMAKE_CURRENT_SOURCE_DIR}/launcher/fake_worker.cpp)
target_include_directories(fake_worker PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(fake_worker PRIVATE common proto proto_channel)

cox_test(launcher LABELS unit process LINK yaml-cpp)
if(TARGET launcher_test)
  # They hold no libtorch; taken alone, so that the test needs none.
  target_sources(launcher_test PRIVATE ${PROJECT_SOURCE_DIR}/worker/service/links.cpp
                                       ${PROJECT_SOURCE_DIR}/worker/service/clock_offset.cpp
                                       ${PROJECT_SOURCE_DIR}/worker/service/exchange.cpp
                                       ${PROJECT_SOURCE_DIR}/worker/service/gather_held.cpp
                                       ${PROJECT_SOURCE_DIR}/worker/service/agent_link.cpp
                                       ${PROJECT_SOURCE_DIR}/worker/service/action_watch.cpp)
  target_link_libraries(launcher_test PRIVATE collective_conformance)
  add_dependencies(launcher_test launch fake_worker)
endif()
