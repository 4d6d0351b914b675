#include "common/thread_name.h"

#include <pthread.h>

#include <string>
#include <thread>

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

/// As the kernel has it, of a thread that names itself so.
std::string name_after(const char* name) {
  char found[16] = {};
  std::thread([&] {
    name_thread(name);
    ::pthread_getname_np(::pthread_self(), found, sizeof found);
  }).join();
  return found;
}

TEST_CASE("a thread has the name that it gave itself") { CHECK(name_after("agent link") == "agent link"); }

TEST_CASE("a name that is too long is cut, not refused") {
  CHECK(name_after("0123456789abcdefgh") == "0123456789abcde");
}

}  // namespace
}  // namespace coxswain
