#pragma once
// How long the calling thread has computed, whatever it waited: a device with a share of a core is as warm as another
// after the same work. Threads: any.
#include "common/units.h"

namespace coxswain {

/// Since the thread began, to a microsecond.
[[nodiscard]] Seconds thread_processor_time();

}  // namespace coxswain
