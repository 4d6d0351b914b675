#include "executor/executor.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "common/ensure.h"

namespace coxswain::executor {
namespace {

using plan::Stream;

constexpr Seconds kSecondLook{1};

// Communication first: on a CPU a compute action holds this thread until it ends, and what could be on its way
// meanwhile must have been started before.
constexpr std::array<Stream, plan::kNumStreams> kStreams{
    Stream::ActivationIn,   Stream::ActivationOut,    Stream::GradientIn,
    Stream::GradientOut,    Stream::BackActivationIn, Stream::BackActivationOut,
    Stream::BackGradientIn, Stream::BackGradientOut,  Stream::Gather,
    Stream::Reduce,         Stream::Compute};

std::size_t slot_of(Stream stream) { return static_cast<std::size_t>(stream); }

}  // namespace

void Executor::Partners::take(const Communication& communication) {
  group = communication.group;
  exchanges = communication.kind == Communication::Kind::Exchange;
  peers.clear();
  for (const collective::PointToPoint& transfer : communication.transfers) {
    if (peers.empty() || peers.back() != transfer.peer) peers.push_back(transfer.peer);
  }
}

std::string Executor::Partners::text() const {
  if (group < 0) return "";
  std::string text = "group " + std::to_string(group);
  if (!exchanges) return text;
  text += ", peers ";
  for (std::size_t i = 0; i < peers.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(peers[i]);
  return text + " of it";
}

Executor::Executor(const plan::RankProgram& program, Compute& compute,
                   std::vector<collective::Communicator*> communicators, const Clock& clock)
    : program_(program),
      compute_(compute),
      communicators_(std::move(communicators)),
      clock_(clock),
      state_(program),
      times_(program.actions.size()),
      running_(plan::kNumStreams, -1),
      looked_(plan::kNumStreams, -1),
      handles_(plan::kNumStreams),
      partners_(plan::kNumStreams) {
  std::copy_if(kStreams.begin(), kStreams.end(), std::back_inserter(streams_), [&](Stream stream) {
    return std::find(program.streams.begin(), program.streams.end(), stream) != program.streams.end();
  });
  begin_step();
}

void Executor::begin_step() {
  state_.reset();
  std::fill(times_.begin(), times_.end(), ActionTime{});
  std::fill(running_.begin(), running_.end(), -1);
  std::fill(looked_.begin(), looked_.end(), -1);
  std::fill(handles_.begin(), handles_.end(), collective::Handle{});
  step_start_ = clock_.now();
}

void Executor::tell_stalls(Seconds patience, std::function<void(const std::string& pending)> told) {
  patience_ = patience;
  told_ = std::move(told);
}

bool Executor::done() const { return state_.done(); }

std::int64_t Executor::progress() const { return num_finished_.load(std::memory_order_relaxed); }

double Executor::since_start() const { return std::chrono::duration<double>(clock_.now() - step_start_).count(); }

Error Executor::at_action(Error error, int action, Stream stream) const {
  std::string path = "rank " + std::to_string(program_.rank) + " action " + std::to_string(action) + " " +
                     plan::to_text(program_.actions[static_cast<std::size_t>(action)]);
  if (const std::string partners = partners_[slot_of(stream)].text(); !partners.empty()) path += " (" + partners + ")";
  // The blank keeps an inner path apart.
  return with_path_prefix(std::move(error), path + (error.path.empty() ? "" : " "));
}

void Executor::complete(int action, Stream stream) {
  times_[static_cast<std::size_t>(action)].end = since_start();
  running_[slot_of(stream)] = -1;
  state_.finished(action);
  num_finished_.fetch_add(1, std::memory_order_relaxed);
}

/// Finishes what runs on `stream`, if it has ended.
Result<bool> Executor::poll(Stream stream, Deadline deadline) {
  const int action = running_[slot_of(stream)];
  if (action < 0) return false;
  const plan::Action& what = program_.actions[static_cast<std::size_t>(action)];
  if (stream == Stream::Compute) {
    Result<bool> finished = compute_.finished();
    if (!finished) return at_action(std::move(finished).error(), action, stream);
    if (!*finished) return false;
  } else {
    collective::Handle& handle = handles_[slot_of(stream)];
    if (!handle.done()) return false;
    if (auto result = handle.wait(deadline); !result) return at_action(std::move(result).error(), action, stream);
    handle = {};
    if (auto result = compute_.finish(what); !result) return at_action(std::move(result).error(), action, stream);
  }
  complete(action, stream);
  return true;
}

Result<void> Executor::communicate(const plan::Action& action, Stream stream, Deadline deadline) {
  COX_TRY(Communication communication, compute_.prepare(action));
  if (communication.kind == Communication::Kind::None) return {};
  partners_[slot_of(stream)].take(communication);
  const auto group = static_cast<std::size_t>(communication.group);
  COX_ENSURE(communication.group >= 0 && group < communicators_.size() && communicators_[group] != nullptr,
             communication.group, to_text(action));
  collective::Communicator& communicator = *communicators_[group];
  collective::Handle& handle = handles_[slot_of(stream)];
  switch (communication.kind) {
    case Communication::Kind::None: break;
    case Communication::Kind::AllReduce:
      handle = communicator.all_reduce(communication.buffer, communication.op, deadline);
      break;
    case Communication::Kind::Exchange:
      handle = communicator.exchange(std::move(communication.transfers), deadline);
      break;
    case Communication::Kind::ReduceScatter:
      handle = communicator.reduce_scatter(communication.buffer, communication.output, std::move(communication.counts),
                                           communication.op, deadline);
      break;
    case Communication::Kind::AllGather:
      handle = communicator.all_gather(communication.buffer, communication.output, std::move(communication.counts),
                                       deadline);
      break;
  }
  return {};
}

/// Starts the next action of `stream`, if it may start.
Result<bool> Executor::start(Stream stream, Deadline deadline) {
  int& looked = looked_[slot_of(stream)];
  if (looked == state_.num_finished()) return false;
  const int action = state_.startable(stream);
  if (action < 0) {
    looked = state_.num_finished();
    return false;
  }
  const plan::Action& what = program_.actions[static_cast<std::size_t>(action)];
  state_.started(action);
  running_[slot_of(stream)] = action;
  partners_[slot_of(stream)].group = -1;
  times_[static_cast<std::size_t>(action)].start = since_start();
  Result<void> result = stream == Stream::Compute ? compute_.start(what) : communicate(what, stream, deadline);
  if (!result) return at_action(std::move(result).error(), action, stream);
  return true;
}

Result<bool> Executor::advance(Deadline deadline) {
  bool moved = false;
  bool again = true;
  while (again) {
    again = false;
    for (const Stream stream : streams_) {
      // What ended lets others start, and they come first: a compute action starts only in a pass without other news.
      COX_TRY(const bool ended, poll(stream, deadline));
      again = again || ended;
      if (stream == Stream::Compute && again) break;
      COX_TRY(const bool began, start(stream, deadline));
      again = again || began;
    }
    moved = moved || again;
  }
  return moved;
}

std::string Executor::pending() const {
  std::string pending;
  for (const Stream stream : streams_) {
    const int action = running_[slot_of(stream)] >= 0 ? running_[slot_of(stream)] : state_.next(stream);
    if (action < 0) continue;
    pending += (pending.empty() ? "" : "; ") + plan::to_text(program_.actions[static_cast<std::size_t>(action)]);
    if (running_[slot_of(stream)] < 0) {
      pending += " not started";
    } else if (const std::string partners = partners_[slot_of(stream)].text(); !partners.empty()) {
      pending += " with " + partners;
    }
  }
  return pending;
}

Error Executor::overdue() const {
  return Error{ErrorCode::DeadlineExceeded, "step did not end in time", "rank " + std::to_string(program_.rank),
               "every action finished",     "pending: " + pending(),    "look at the peers named here first"};
}

Result<void> Executor::run_step(collective::CompletionSignal& signal, Deadline deadline) {
  begin_step();
  bool stalled = false, doubted = false;
  while (true) {
    // Read before looking: what completes after that changes the count, so the wait below returns at once.
    const std::uint64_t seen = signal.count();
    COX_TRY(const bool moved, advance(deadline));
    if (moved && std::exchange(stalled, false)) told_("");
    if (done()) return {};
    if (deadline.passed(clock_)) return overdue();
    if (moved) {
      doubted = false;
      continue;
    }
    // Who computes waits for nobody; whether that takes too long is its watch's affair.
    const bool looks = patience_ > Seconds(0) && !stalled && running_[slot_of(Stream::Compute)] < 0 &&
                       patience_ < deadline.remaining(clock_);
    // A process that stood still as a whole finds its wait over before it sees what came: it looks once more.
    const Seconds look = doubted ? std::min(patience_, kSecondLook) : patience_;
    if (signal.wait_change(seen, looks ? Deadline::after(clock_, look) : deadline)) {
      doubted = false;
      continue;
    }
    if (!looks) return overdue();
    if (!doubted) {
      doubted = true;
      continue;
    }
    doubted = false;
    stalled = true;
    told_(pending());
  }
}

}  // namespace coxswain::executor
