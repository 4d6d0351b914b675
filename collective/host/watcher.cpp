#include "collective/host/watcher.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>

#include "common/thread_name.h"

namespace coxswain::collective {

Result<std::shared_ptr<Watcher>> Watcher::start() {
  UniqueFd poller(::epoll_create1(EPOLL_CLOEXEC));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!poller || !stop) return system_error(ErrorCode::ResourceExhausted, "cannot watch connections");
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (::epoll_ctl(poller.value(), EPOLL_CTL_ADD, stop.value(), &event) != 0) {
    return system_error(ErrorCode::ResourceExhausted, "cannot watch connections");
  }
  std::shared_ptr<Watcher> watcher(new Watcher(std::move(poller), std::move(stop)));
  watcher->thread_ = std::jthread([self = watcher.get()] { self->run(); });
  return watcher;
}

Watcher::~Watcher() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(stop_.value(), &one, sizeof(one));
}

std::uint64_t Watcher::watch(int fd, std::function<bool()> readable) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t id = next_id_++;
  entries_[id] = {fd, std::move(readable)};
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = id;
  ::epoll_ctl(poller_.value(), EPOLL_CTL_ADD, fd, &event);
  return id;
}

void Watcher::forget(std::uint64_t id) {
  const std::lock_guard running(running_);
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return;
  ::epoll_ctl(poller_.value(), EPOLL_CTL_DEL, entry->second.fd, nullptr);
  entries_.erase(entry);
}

void Watcher::dispatch(std::uint64_t id) {
  const std::lock_guard running(running_);
  std::function<bool()> readable;
  {
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(id);
    if (entry == entries_.end()) return;
    readable = entry->second.readable;
  }
  if (!readable()) forget(id);
}

void Watcher::run() {
  name_thread("peer watch");
  std::array<epoll_event, 16> events;
  while (true) {
    const int ready = ::epoll_wait(poller_.value(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < ready; ++i) {
      if (events[static_cast<std::size_t>(i)].data.u64 == 0) return;
      dispatch(events[static_cast<std::size_t>(i)].data.u64);
    }
  }
}

}  // namespace coxswain::collective
