#include "launcher/control/restarts.h"

#include <algorithm>
#include <cmath>

namespace coxswain::launcher {
namespace {

constexpr std::chrono::hours kWindow{1};
constexpr double kFirstBackOffSeconds = 1, kLastBackOffSeconds = 60;

}  // namespace

bool Restarts::allows(const FailurePoint& failure, TimePoint now) const {
  if (is_hopeless(failure)) return false;
  return std::count_if(times_.begin(), times_.end(), [&](TimePoint at) { return now < at + kWindow; }) < most_;
}

bool Restarts::is_hopeless(const FailurePoint& failure) const {
  return std::count(in_a_row_.begin(), in_a_row_.end(), failure) + 1 >= kSameFailures;
}

void Restarts::add(FailurePoint failure, TimePoint now) {
  times_.push_back(now);
  in_a_row_.push_back(std::move(failure));
}

Seconds Restarts::back_off() const {
  if (in_a_row_.size() < 2) return Seconds(0);
  const auto doublings = static_cast<double>(in_a_row_.size() - 2);
  return Seconds(std::min(kLastBackOffSeconds, kFirstBackOffSeconds * std::exp2(doublings)));
}

}  // namespace coxswain::launcher
