#include "collective/mpi/driver.h"

#include <algorithm>
#include <chrono>

#include "common/clock.h"

namespace coxswain::collective {
namespace {

// MPI has no way to sleep until a request moves. A while of plain polling keeps short operations fast; then the core
// goes to whoever computes.
constexpr int kEagerPolls = 2000;
constexpr std::chrono::microseconds kPause{50};

}  // namespace

Result<void> check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return {};
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return Error{ErrorCode::Unavailable,
               std::string(call) + " failed: " + std::string(text, static_cast<std::size_t>(length)),
               "",
               "",
               "",
               ""};
}

void MpiGroup::fail(Error error) {
  std::vector<std::weak_ptr<MpiGroup>> children;
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = error;
    children = children_;
  }
  if (error.code != ErrorCode::Aborted) return;
  for (const auto& child : children) {
    if (const auto alive = child.lock()) alive->fail(error);
  }
}

std::optional<Error> MpiGroup::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

void MpiGroup::add_child(const std::shared_ptr<MpiGroup>& child) {
  const std::lock_guard lock(mutex_);
  std::erase_if(children_, [](const auto& other) { return other.expired(); });
  children_.push_back(child);
}

Result<MpiDriver*> MpiDriver::instance() {
  static MpiDriver driver;
  std::unique_lock lock(driver.mutex_);
  if (!driver.thread_.joinable()) driver.thread_ = std::thread([] { driver.run(); });
  driver.changed_.wait(lock, [] { return driver.initialised_.has_value(); });
  if (!*driver.initialised_) return driver.initialised_->error();
  return &driver;
}

MpiDriver::~MpiDriver() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> MpiDriver::initialise() {
  int already = 0;
  MPI_Initialized(&already);
  if (already != 0)
    return Error{ErrorCode::FailedPrecondition, "MPI was initialised by another part of this process", "", "", "", ""};
  int provided = MPI_THREAD_SINGLE;
  COX_TRY_VOID(check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
  if (provided < MPI_THREAD_FUNNELED) {
    return Error{ErrorCode::FailedPrecondition,
                 "this MPI does not support threads",
                 "",
                 "MPI_THREAD_FUNNELED",
                 "MPI_THREAD_SINGLE",
                 ""};
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size_);
  return {};
}

void MpiDriver::submit(MpiTask task) {
  {
    const std::lock_guard lock(mutex_);
    ++task.group->pending_;
    queue_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void MpiDriver::wait_idle(const MpiGroup& group, Deadline deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline.at, [&] { return group.pending_ == 0; });
}

void MpiDriver::free(MPI_Comm comm) {
  {
    const std::lock_guard lock(mutex_);
    unused_.push_back(comm);
  }
  changed_.notify_all();
}

void MpiDriver::finish(MpiTask& task, Result<void> result) {
  if (!result) {
    task.group->fail(result.error());
    result = *task.group->error();
    sound_ = false;
  }
  task.operation->complete(std::move(result));
  {
    const std::lock_guard lock(mutex_);
    --task.group->pending_;
  }
  changed_.notify_all();
}

/// Operations of one group run one after another, as on every backend; groups run beside each other.
bool MpiDriver::start_ready_tasks() {
  bool any = false;
  {
    const std::lock_guard lock(mutex_);
    while (!queue_.empty()) {
      waiting_.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
  }
  std::vector<const MpiGroup*> busy;
  for (const MpiTask& task : active_) busy.push_back(task.group.get());
  for (auto task = waiting_.begin(); task != waiting_.end();) {
    const bool later = task->blocking ? !active_.empty() || task != waiting_.begin()
                                      : std::find(busy.begin(), busy.end(), task->group.get()) != busy.end();
    if (later) {
      busy.push_back(task->group.get());
      ++task;
      continue;
    }
    any = true;
    Result<void> started;
    if (const auto error = task->group->error()) {
      started = *error;
    } else if (task->start) {
      started = guard("collective/mpi", [&] { return task->start(task->requests); });
    }
    if (!started) {
      finish(*task, std::move(started));
    } else {
      busy.push_back(task->group.get());
      active_.push_back(std::move(*task));
    }
    task = waiting_.erase(task);
  }
  return any;
}

bool MpiDriver::drive() {
  bool any = false;
  for (auto task = active_.begin(); task != active_.end();) {
    int done = 0;
    Result<void> result = check_mpi(
        MPI_Testall(static_cast<int>(task->requests.size()), task->requests.data(), &done, MPI_STATUSES_IGNORE),
        "MPI_Testall");
    if (result && done == 0) {
      if (const auto error = task->group->error()) {
        result = *error;
      } else if (task->deadline.passed(steady_clock())) {
        result = Error{ErrorCode::DeadlineExceeded,
                       task->operation->name() + ": the deadline passed (rank " + std::to_string(world_rank_) + ": " +
                           to_text(task->mark) + ")",
                       "",
                       "",
                       "",
                       ""};
      }
    }
    if (result && done == 0) {
      ++task;
      continue;
    }
    any = true;
    finish(*task, std::move(result));
    task = active_.erase(task);
  }
  return any;
}

void MpiDriver::wait_for_work(int idle_polls) {
  std::unique_lock lock(mutex_);
  if (!queue_.empty() || stopping_) return;
  if (active_.empty() && waiting_.empty()) {
    changed_.wait(lock, [&] { return !queue_.empty() || !unused_.empty() || stopping_; });
  } else if (idle_polls > kEagerPolls) {
    changed_.wait_for(lock, kPause);
  } else {
    lock.unlock();
    std::this_thread::yield();
  }
}

void MpiDriver::run() {
  Result<void> initialised = initialise();
  {
    const std::lock_guard lock(mutex_);
    initialised_ = initialised;
  }
  changed_.notify_all();
  if (!initialised) return;
  int idle_polls = 0;
  while (true) {
    const bool started = start_ready_tasks();
    idle_polls = drive() || started ? 0 : idle_polls + 1;
    std::vector<MPI_Comm> unused;
    bool over = false;
    {
      const std::lock_guard lock(mutex_);
      unused.swap(unused_);
      over = stopping_ && queue_.empty() && active_.empty() && waiting_.empty();
    }
    // A communicator with requests that were given up must not be freed.
    for (MPI_Comm comm : unused) {
      if (sound_) MPI_Comm_free(&comm);
    }
    if (over) break;
    wait_for_work(idle_polls);
  }
  // Ranks that gave up an operation leave without a farewell, so that mpirun ends the others.
  if (sound_) MPI_Finalize();
}

}  // namespace coxswain::collective
