#include "planner/words.h"

#include <cmath>
#include <cstdio>

namespace coxswain::planner {

std::string bytes_text(std::int64_t bytes) {
  constexpr double kGiB = 1 << 30, kMiB = 1 << 20, kKiB = 1 << 10;
  char text[32];
  const auto value = static_cast<double>(bytes);
  if (value >= kGiB)
    std::snprintf(text, sizeof text, "%.2f GiB", value / kGiB);
  else if (value >= kMiB)
    std::snprintf(text, sizeof text, "%.2f MiB", value / kMiB);
  else
    std::snprintf(text, sizeof text, "%.2f KiB", value / kKiB);
  return text;
}

std::string seconds_text(Seconds seconds) {
  char text[32];
  if (seconds.value >= 1)
    std::snprintf(text, sizeof text, "%.3f s", seconds.value);
  else if (seconds.value >= 1e-3)
    std::snprintf(text, sizeof text, "%.2f ms", seconds.value * 1e3);
  else
    std::snprintf(text, sizeof text, "%.1f us", seconds.value * 1e6);
  return text;
}

std::string compare_text(Seconds step, Seconds base) {
  constexpr double kSame = 0.0005;
  const double ratio = step / base - 1;
  if (std::abs(ratio) < kSame) return "as fast";
  char text[40];
  std::snprintf(text, sizeof text, "%.1f %% %s", std::abs(ratio) * 100, ratio > 0 ? "slower" : "faster");
  return text;
}

}  // namespace coxswain::planner
