#include "bench/support/simulated_network.h"

namespace coxswain::bench {
namespace {

constexpr double kLeastDelay = 0.0002, kMostDelay = 0.003;
// One message in fifty is late by so much.
constexpr double kLateShare = 0.02, kLateDelay = 0.2;

}  // namespace

TimePoint Connection::arrival(TimePoint& last) {
  const double delay = random_.chance(kLateShare) ? kLateDelay : kMostDelay;
  const TimePoint begin = std::max(time_.now(), cut_until_);
  last = std::max(last, launcher::after(begin, random_.between(kLeastDelay, delay)));
  return last;
}

bool Connection::send(std::string body) {
  if (!open_) return false;
  if (vanished_) return true;
  time_.at(arrival(last_down_), [self = shared_from_this(), body = std::move(body)]() mutable {
    if (self->open_ && !self->vanished_) self->agent_.arrived(*self, std::move(body));
  });
  return true;
}

void Connection::send_up(std::string body) {
  if (!open_ || vanished_) return;
  time_.at(arrival(last_up_), [self = shared_from_this(), body = std::move(body)]() mutable {
    const auto coordinator = self->coordinator_.lock();
    if (self->open_ && !self->vanished_ && coordinator) coordinator->arrived(*self, std::move(body));
  });
}

void Connection::end(bool by_agent) {
  if (!open_) return;
  open_ = false;
  const TimePoint soon = launcher::after(time_.now(), random_.between(0, kMostDelay));
  const TimePoint over_network = std::max(soon, launcher::after(cut_until_, kMostDelay));
  time_.at(by_agent ? soon : over_network, [self = shared_from_this()] {
    if (!self->vanished_) self->agent_.ended(*self);
  });
  time_.at(by_agent ? over_network : soon, [self = shared_from_this()] {
    if (const auto coordinator = self->coordinator_.lock()) coordinator->ended(*self);
  });
}

void Connection::hang_up_after_last() {
  time_.at(launcher::after(last_up_, kMostDelay), [self = shared_from_this()] { self->hang_up(); });
}

}  // namespace coxswain::bench
