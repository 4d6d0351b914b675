#include "worker/service/links.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "common/processor_time.h"

namespace coxswain::worker {
namespace {

using collective::BufferView;
using collective::Communicator;

constexpr int kWarmUpRounds = 5, kLatencyRounds = 40, kBandwidthRounds = 5;
constexpr std::int64_t kFirstBytes = 256 << 10, kLastBytes = 8 << 20;
// A message that takes this long is longer than any burst that a rate limit lets through.
constexpr double kLongSeconds = 0.25;
// Inside a node a message is a copy: what a device's share of the cores gives for so long, not in one turn of it.
constexpr double kCopySeconds = 0.1;
constexpr std::int64_t kMostCopies = 1024;
// About what lies between two collectives of a layer, where a layer is worth to be split.
constexpr double kBurstSeconds = 3e-3;
constexpr int kBursts = 12, kBusyRounds = 15;

double seconds_since(TimePoint begin) { return std::chrono::duration<double>(steady_clock().now() - begin).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// One side of a measured pair.
class Pair {
 public:
  Pair(Communicator& world, int peer, bool same_node, Deadline deadline)
      : world_(world),
        peer_(peer),
        same_node_(same_node),
        deadline_(deadline),
        data_(static_cast<std::size_t>(kLastBytes)) {}

  Result<LinkMeasurement> lead() {
    std::vector<double> rounds;
    for (int round = 0; round < kWarmUpRounds + kLatencyRounds; ++round) {
      const TimePoint begin = steady_clock().now();
      COX_TRY_VOID(send(sizeof(std::int64_t)));
      COX_TRY_VOID(receive(sizeof(std::int64_t)));
      if (round >= kWarmUpRounds) rounds.push_back(seconds_since(begin));
    }
    LinkMeasurement measured;
    measured.from = world_.rank();
    measured.to = peer_;
    measured.latency = Seconds(median(rounds) / 2);

    std::int64_t bytes = kFirstBytes;
    COX_TRY(double seconds, timed_messages(bytes, 1));
    while (seconds < kLongSeconds && bytes < kLastBytes) {
      bytes *= 2;
      COX_TRY(seconds, timed_messages(bytes, 1));
    }
    const auto fill = static_cast<std::int64_t>(std::ceil(kCopySeconds / seconds));
    const std::int64_t count = same_node_ ? std::clamp<std::int64_t>(fill, 1, kMostCopies) : 1;
    std::vector<double> times;
    if (count == 1) times.push_back(seconds);
    while (times.size() < kBandwidthRounds && seconds < kLongSeconds) {
      COX_TRY(const double again, timed_messages(bytes, count));
      times.push_back(again);
    }
    COX_TRY_VOID(announce(0, 0));
    // There and the small answer back: two latencies, one of which the message's own start is.
    const double transfer = std::max(median(times) - 2 * measured.latency.value, 1e-9);
    measured.bandwidth = BytesPerSecond(static_cast<double>(bytes * count) / transfer);
    return measured;
  }

  Result<void> follow() {
    for (int round = 0; round < kWarmUpRounds + kLatencyRounds; ++round) {
      COX_TRY_VOID(receive(sizeof(std::int64_t)));
      COX_TRY_VOID(send(sizeof(std::int64_t)));
    }
    for (;;) {
      std::int64_t next[] = {0, 0};
      COX_TRY_VOID(world_.recv({next, 2, DType::Int64}, peer_, deadline_).wait(deadline_));
      const auto [bytes, count] = next;
      if (bytes <= 0 || bytes > kLastBytes) return {};
      for (std::int64_t i = 0; i < count; ++i) COX_TRY_VOID(receive(bytes));
      COX_TRY_VOID(send(sizeof(std::int64_t)));
    }
  }

 private:
  /// So many messages one after another, and an answer to the last.
  Result<double> timed_messages(std::int64_t bytes, std::int64_t count) {
    COX_TRY_VOID(announce(bytes, count));
    const TimePoint begin = steady_clock().now();
    for (std::int64_t i = 0; i < count; ++i) COX_TRY_VOID(send(bytes));
    COX_TRY_VOID(receive(sizeof(std::int64_t)));
    return seconds_since(begin);
  }
  Result<void> announce(std::int64_t bytes, std::int64_t count) {
    std::int64_t next[] = {bytes, count};
    return world_.send({next, 2, DType::Int64}, peer_, deadline_).wait(deadline_);
  }
  Result<void> send(std::int64_t bytes) {
    return world_.send({data_.data(), bytes, DType::UInt8}, peer_, deadline_).wait(deadline_);
  }
  Result<void> receive(std::int64_t bytes) {
    return world_.recv({data_.data(), bytes, DType::UInt8}, peer_, deadline_).wait(deadline_);
  }

  Communicator& world_;
  int peer_;
  bool same_node_;
  Deadline deadline_;
  std::vector<std::byte> data_;
};

/// Computes for so long, whenever it gets to it.
void compute_for(double seconds) {
  constexpr int kMultiplications = 4096;
  const double end = thread_processor_time().value + seconds;
  volatile double value = 1.0;
  while (thread_processor_time().value < end) {
    for (int i = 0; i < kMultiplications; ++i) value = value * 1.0000001;
  }
}

/// What each step of a collective adds to the computing between two of them, all ranks being busy: everyone waits for
/// the last one's turn.
class BusyNode {
 public:
  BusyNode(Communicator& world, const std::vector<std::string>& nodes, Deadline deadline)
      : world_(world), deadline_(deadline) {
    for (int rank = 0; rank < static_cast<int>(nodes.size()); ++rank) {
      if (rank != world.rank() &&
          nodes[static_cast<std::size_t>(rank)] == nodes[static_cast<std::size_t>(world.rank())])
        peers_.push_back(rank);
    }
  }

  /// The mean over all ranks: how their turns lie to each other is chance, and another one in the next run.
  Result<Seconds> measure() {
    std::vector<double> added;
    for (int i = 0; i < kBusyRounds; ++i) {
      COX_TRY(const double together, round(true));
      COX_TRY(const double alone, round(false));
      COX_TRY(const double slowest, meet(alone));
      added.push_back(together - slowest);
    }
    float sums[] = {0, 0};
    if (!peers_.empty()) {
      // A ring of P takes P - 1 steps (docs/cost_model.md, C7).
      sums[0] = static_cast<float>(median(std::move(added)) / static_cast<double>(peers_.size()));
      sums[1] = 1;
    }
    COX_TRY_VOID(world_.all_reduce({sums, 2, DType::Float32}, collective::ReduceOp::Sum, deadline_).wait(deadline_));
    return Seconds(sums[1] > 0 ? std::max(0.0F, sums[0] / sums[1]) : 0.0F);
  }

 private:
  /// Seconds of a burst of computing, followed by a meeting of the node's ranks where it `meets`.
  Result<double> round(bool meets) {
    const TimePoint begin = steady_clock().now();
    for (int burst = 0; burst < kBursts; ++burst) {
      compute_for(kBurstSeconds);
      if (!meets) continue;
      COX_TRY(const double slowest, meet(0));
      static_cast<void>(slowest);
    }
    return seconds_since(begin) / kBursts;
  }
  /// The greatest of the node's values.
  Result<double> meet(double value) {
    if (peers_.empty()) return value;
    std::vector<double> others(peers_.size(), 0);
    std::vector<collective::PointToPoint> transfers;
    using Kind = collective::PointToPoint::Kind;
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      transfers.push_back({Kind::Send, peers_[i], {&value, sizeof value, DType::UInt8}});
      transfers.push_back({Kind::Receive, peers_[i], {&others[i], sizeof value, DType::UInt8}});
    }
    COX_TRY_VOID(world_.exchange(std::move(transfers), deadline_).wait(deadline_));
    return std::max(value, *std::max_element(others.begin(), others.end()));
  }

  Communicator& world_;
  Deadline deadline_;
  std::vector<int> peers_;
};

}  // namespace

std::vector<std::pair<int, int>> link_pairs(const std::vector<std::string>& nodes) {
  std::vector<std::string> names;
  std::vector<std::vector<int>> ranks;
  for (int rank = 0; rank < static_cast<int>(nodes.size()); ++rank) {
    const auto found = std::find(names.begin(), names.end(), nodes[static_cast<std::size_t>(rank)]);
    if (found == names.end()) {
      names.push_back(nodes[static_cast<std::size_t>(rank)]);
      ranks.push_back({rank});
    } else {
      ranks[static_cast<std::size_t>(found - names.begin())].push_back(rank);
    }
  }
  std::vector<std::pair<int, int>> pairs;
  for (const auto& of_node : ranks) {
    if (of_node.size() > 1) pairs.emplace_back(of_node[0], of_node[1]);
  }
  for (std::size_t a = 0; a < ranks.size(); ++a) {
    for (std::size_t b = a + 1; b < ranks.size(); ++b) pairs.emplace_back(ranks[a][0], ranks[b][0]);
  }
  return pairs;
}

Result<std::vector<LinkMeasurement>> measure_links(Communicator& world, const std::vector<std::string>& nodes,
                                                   Deadline deadline) {
  std::vector<LinkMeasurement> measurements;
  COX_TRY(const Seconds busy, BusyNode(world, nodes, deadline).measure());
  for (const auto& [from, to] : link_pairs(nodes)) {
    const bool same_node = nodes[static_cast<std::size_t>(from)] == nodes[static_cast<std::size_t>(to)];
    if (world.rank() == from) {
      COX_TRY(LinkMeasurement measured, Pair(world, to, same_node, deadline).lead());
      measured.latency = std::max(measured.latency, busy);
      measurements.push_back(measured);
    } else if (world.rank() == to) {
      COX_TRY_VOID(Pair(world, from, same_node, deadline).follow());
    }
    // One pair at a time, so that none measures another's traffic.
    COX_TRY_VOID(world.barrier(deadline).wait(deadline));
  }
  return measurements;
}

}  // namespace coxswain::worker
