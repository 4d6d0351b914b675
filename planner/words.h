#pragma once
// Numbers as people read them. Private to planner/. Threads: pure.
#include <string>

#include "common/units.h"

namespace coxswain::planner {

/// "1.50 GiB", "12.00 MiB", "3.50 KiB".
[[nodiscard]] std::string bytes_text(std::int64_t bytes);
/// "1.234 s", "12.34 ms", "5.6 us".
[[nodiscard]] std::string seconds_text(Seconds seconds);
/// "12.3 % slower", "as fast", "0.4 % faster": of `step` beside `base`.
[[nodiscard]] std::string compare_text(Seconds step, Seconds base);

}  // namespace coxswain::planner
