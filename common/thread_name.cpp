#include "common/thread_name.h"

#include <pthread.h>

#include <string>

namespace coxswain {

void name_thread(const char* name) {
  constexpr std::size_t kMost = 15;  // the kernel refuses a longer one
  ::pthread_setname_np(::pthread_self(), std::string(name).substr(0, kMost).c_str());
}

}  // namespace coxswain
