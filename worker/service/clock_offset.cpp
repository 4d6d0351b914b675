#include "worker/service/clock_offset.h"

#include <algorithm>

namespace coxswain::worker {
namespace {

using collective::BufferView;
using collective::Communicator;

constexpr int kRounds = 32;

/// Rank 0's side: asks `peer` for its time.
Result<ClockOffset> ask(Communicator& world, int peer, const Clock& clock, Deadline deadline) {
  ClockOffset best;
  std::int64_t shortest = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::int64_t question = round, answer = 0;
    const std::int64_t asked = nanoseconds_of(clock.now());
    COX_TRY_VOID(world.send({&question, 1, DType::Int64}, peer, deadline).wait(deadline));
    COX_TRY_VOID(world.recv({&answer, 1, DType::Int64}, peer, deadline).wait(deadline));
    const std::int64_t trip = nanoseconds_of(clock.now()) - asked;
    if (round > 0 && trip >= shortest) continue;
    shortest = trip;
    best = {answer - (asked + trip / 2), (trip + 1) / 2};
  }
  return best;
}

Result<void> answer(Communicator& world, const Clock& clock, Deadline deadline) {
  for (int round = 0; round < kRounds; ++round) {
    std::int64_t question = 0;
    COX_TRY_VOID(world.recv({&question, 1, DType::Int64}, 0, deadline).wait(deadline));
    std::int64_t now = nanoseconds_of(clock.now());
    COX_TRY_VOID(world.send({&now, 1, DType::Int64}, 0, deadline).wait(deadline));
  }
  return {};
}

}  // namespace

std::int64_t nanoseconds_of(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

Result<ClockOffset> measure_clock_offset(Communicator& world, const std::vector<std::string>& nodes, const Clock& clock,
                                         Deadline deadline) {
  const auto is_first = [&](std::size_t rank) {
    return std::find(nodes.begin(), nodes.end(), nodes[rank]) - nodes.begin() == static_cast<std::ptrdiff_t>(rank);
  };
  // Offset and error of every rank; one rank a node is asked, one after the other.
  std::vector<std::int64_t> known(2 * nodes.size(), 0);
  bool alone = true;
  for (std::size_t rank = 1; rank < nodes.size(); ++rank) {
    if (!is_first(rank)) continue;
    alone = false;
    const int peer = static_cast<int>(rank);
    if (world.rank() == peer) COX_TRY_VOID(answer(world, clock, deadline));
    if (world.rank() != 0) continue;
    COX_TRY(const ClockOffset of_node, ask(world, peer, clock, deadline));
    for (std::size_t other = rank; other < nodes.size(); ++other) {
      if (nodes[other] != nodes[rank]) continue;
      known[2 * other] = of_node.offset_nanoseconds;
      known[2 * other + 1] = of_node.error_nanoseconds;
    }
  }
  if (alone) return ClockOffset{};
  const BufferView all{known.data(), static_cast<std::int64_t>(known.size()), DType::Int64};
  COX_TRY_VOID(world.broadcast(all, 0, deadline).wait(deadline));
  const auto own = 2 * static_cast<std::size_t>(world.rank());
  return ClockOffset{known[own], known[own + 1]};
}

}  // namespace coxswain::worker
