#include "common/processor_time.h"

#include <time.h>

namespace coxswain {

// Not getrusage: of a thread that runs it knows the time up to the last tick, which is four milliseconds apart on many
// kernels.
Seconds processor_time_of(pthread_t thread) {
  clockid_t clock{};
  timespec time{};
  if (::pthread_getcpuclockid(thread, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return Seconds(0);
  return Seconds(static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec));
}

Seconds thread_processor_time() { return processor_time_of(::pthread_self()); }

}  // namespace coxswain
