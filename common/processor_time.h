#pragma once
// How long a thread has computed, whatever it waited: a device with a share of a core is as warm as another after the
// same work, and an action that waits is told from one that computes. Threads: any.
#include <pthread.h>

#include "common/units.h"

namespace coxswain {

/// Since the thread began.
[[nodiscard]] Seconds thread_processor_time();
/// Of a thread of this process; 0 when it has ended.
[[nodiscard]] Seconds processor_time_of(pthread_t thread);

}  // namespace coxswain
