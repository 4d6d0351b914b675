#include "collective/algorithm.h"

#include <functional>
#include <string>
#include <thread>

#include "collective/host/algorithms.h"
#include "tests/collective/memory_transport.h"
#include "tests/collective/ranks.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::collective;

namespace {

/// What a rank did, and what it ended with.
struct Outcome {
  int num_steps = 0;
  std::int64_t sent_bytes = 0;
  std::int64_t reduced_bytes = 0;
  std::vector<std::uint8_t> data;
  std::string error;
};

struct Run {
  MemoryTransport& transport;
  std::vector<std::uint8_t>& data;  // rank r starts with element i = 2^r, none when (i + r) % 3 == 0
  Reducer& reducer;
  Scratch& scratch;

  [[nodiscard]] Data bytes() const { return std::as_writable_bytes(std::span(data)); }
};
using Body = std::function<Result<void>(Run&)>;

std::uint8_t term(int rank, std::size_t i) {
  return (i + static_cast<std::size_t>(rank)) % 3 == 0 ? 0 : static_cast<std::uint8_t>(1 << rank);
}

std::uint8_t sum_of_terms(int size, std::size_t i) {
  int sum = 0;
  for (int rank = 0; rank < size; ++rank) sum += term(rank, i);
  return static_cast<std::uint8_t>(sum);
}

std::vector<Outcome> run(int size, std::size_t payload, const Body& body) {
  Mailboxes mailboxes;
  std::vector<Outcome> outcomes(static_cast<std::size_t>(size));
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Outcome& outcome = outcomes[static_cast<std::size_t>(rank)];
      MemoryTransport transport(mailboxes, rank, size);
      Reducer reducer{DType::UInt8, ReduceOp::Sum};
      Scratch scratch;
      for (std::size_t i = 0; i < payload; ++i) outcome.data.push_back(term(rank, i));
      Run one{transport, outcome.data, reducer, scratch};
      const auto result = body(one);
      if (!result) outcome.error = to_text(result.error());
      outcome.num_steps = transport.num_steps;
      outcome.sent_bytes = transport.sent_bytes;
      outcome.reduced_bytes = reducer.reduced_bytes;
    });
  }
  threads.clear();
  return outcomes;
}

/// The cost is that of the busiest rank, in each of its parts.
void require_cost(const std::vector<Outcome>& outcomes, const AlgorithmCost& cost) {
  Outcome busiest;
  for (const Outcome& outcome : outcomes) {
    REQUIRE(outcome.error == "");
    busiest.num_steps = std::max(busiest.num_steps, outcome.num_steps);
    busiest.sent_bytes = std::max(busiest.sent_bytes, outcome.sent_bytes);
    busiest.reduced_bytes = std::max(busiest.reduced_bytes, outcome.reduced_bytes);
  }
  CHECK(busiest.num_steps == cost.num_steps);
  CHECK(busiest.sent_bytes == cost.sent_bytes.value);
  CHECK(busiest.reduced_bytes == cost.reduced_bytes.value);
}

}  // namespace

TEST_CASE("slices are whole cache lines, in order, and cover the payload") {
  const std::int64_t payload = GENERATE(0, 1, 63, 64, 65, 1000, 4096, 100001);
  const int size = GENERATE(1, 2, 3, 8);
  Bytes next{0};
  for (int index = 0; index < size; ++index) {
    const Slice slice = slice_of(Bytes(payload), size, index);
    CHECK(slice.begin == next);
    CHECK((slice.bytes.value % 64 == 0 || slice.begin + slice.bytes == Bytes(payload)));
    next = slice.begin + slice.bytes;
  }
  CHECK(next == Bytes(payload));
}

TEST_CASE("each all-reduce over messages sums and takes the steps and bytes of its cost") {
  const auto [algorithm, function] =
      GENERATE(table<Algorithm, decltype(&ring_all_reduce)>({{Algorithm::Ring, ring_all_reduce},
                                                             {Algorithm::RecursiveHalving, halving_all_reduce},
                                                             {Algorithm::Tree, tree_all_reduce}}));
  const int size = GENERATE(1, 2, 3, 4, 5, 7, 8);
  const std::size_t payload = GENERATE(0u, 1u, 64u, 100u, 640u, 8192u, 10007u);
  CAPTURE(to_text(algorithm), size, payload);
  const auto outcomes = run(size, payload, [&, function = function](Run& one) {
    return function(one.transport, one.bytes(), one.reducer, one.scratch, soon());
  });
  require_cost(outcomes,
               cost_of(CollectiveKind::AllReduce, algorithm, Bytes(static_cast<std::int64_t>(payload)), size));
  for (const Outcome& outcome : outcomes) {
    for (std::size_t i = 0; i < payload; ++i) {
      if (outcome.data[i] != sum_of_terms(size, i)) FAIL("element " << i << " is wrong");
    }
  }
}

TEST_CASE("the ring all-reduce has the textbook's steps and bytes") {
  // 2 (P - 1) steps of N / P bytes each.
  const AlgorithmCost cost = cost_of(CollectiveKind::AllReduce, Algorithm::Ring, Bytes(4096), 4);
  CHECK(cost.num_steps == 6);
  CHECK(cost.sent_bytes == Bytes(6144));
  CHECK(cost.reduced_bytes == Bytes(3072));
}

TEST_CASE("recursive halving has the textbook's steps and bytes") {
  // 2 log2 P steps; N/2 + N/4 + ... while halving, the same again while doubling.
  const AlgorithmCost cost = cost_of(CollectiveKind::AllReduce, Algorithm::RecursiveHalving, Bytes(4096), 8);
  CHECK(cost.num_steps == 6);
  CHECK(cost.sent_bytes == Bytes(7168));
  CHECK(cost.reduced_bytes == Bytes(3584));
}

TEST_CASE("gathering and scattering over messages take the steps and bytes of their cost") {
  const int size = GENERATE(2, 3, 4, 8);
  const std::size_t payload = static_cast<std::size_t>(size) * 64 * 5;
  const Layout layout = Layout::equal_slices(payload, size);
  const auto cost = [&](CollectiveKind kind, Algorithm algorithm) {
    return cost_of(kind, algorithm, Bytes(static_cast<std::int64_t>(payload)), size);
  };
  const auto gathered = [&](std::size_t i) {
    return term(static_cast<int>(i / (payload / static_cast<std::size_t>(size))), i);
  };
  CAPTURE(size);

  for (const auto& [algorithm, function] :
       {std::pair{Algorithm::Ring, &ring_all_gather}, {Algorithm::Direct, &direct_all_gather}}) {
    const auto outcomes = run(size, payload, [&, function = function](Run& one) {
      return function(one.transport, one.bytes(), layout, soon());
    });
    require_cost(outcomes, cost(CollectiveKind::AllGather, algorithm));
    for (const Outcome& outcome : outcomes) {
      for (std::size_t i = 0; i < payload; ++i) {
        if (outcome.data[i] != gathered(i)) FAIL(to_text(algorithm) << ": element " << i << " is wrong");
      }
    }
  }
  for (const auto& [algorithm, function] :
       {std::pair{Algorithm::Ring, &ring_reduce_scatter}, {Algorithm::Direct, &direct_reduce_scatter}}) {
    const auto outcomes = run(size, payload, [&, function = function](Run& one) {
      std::vector<std::byte> piece(layout.bytes_of(one.transport.rank()));
      const auto result = function(one.transport, one.bytes(), piece, layout, one.reducer, one.scratch, soon());
      std::memcpy(one.data.data(), piece.data(), piece.size());
      return result;
    });
    require_cost(outcomes, cost(CollectiveKind::ReduceScatter, algorithm));
    for (int rank = 0; rank < size; ++rank) {
      for (std::size_t i = 0; i < layout.bytes_of(rank); ++i) {
        const std::uint8_t expected = sum_of_terms(size, layout.begins[static_cast<std::size_t>(rank)] + i);
        if (outcomes[static_cast<std::size_t>(rank)].data[i] != expected)
          FAIL(to_text(algorithm) << ": element " << i << " is wrong");
      }
    }
  }
}

TEST_CASE("broadcast, all-to-all and barrier over messages take the steps and bytes of their cost") {
  const int size = GENERATE(2, 3, 4, 5, 8);
  const std::size_t payload = static_cast<std::size_t>(size) * 64;
  const Layout layout = Layout::equal_slices(payload, size);
  const auto cost = [&](CollectiveKind kind, Algorithm algorithm) {
    return cost_of(kind, algorithm, Bytes(static_cast<std::int64_t>(payload)), size);
  };
  CAPTURE(size);
  const auto from_one =
      run(size, payload, [&](Run& one) { return tree_broadcast(one.transport, one.bytes(), 1, soon()); });
  require_cost(from_one, cost(CollectiveKind::Broadcast, Algorithm::Tree));
  for (const Outcome& outcome : from_one) CHECK(outcome.data == from_one[1].data);
  CHECK(from_one[0].data[0] == 2);  // element 0 of rank 1

  const auto exchanged = run(size, payload, [&](Run& one) {
    std::vector<std::byte> received(payload);
    const auto result = direct_all_to_all(one.transport, one.bytes(), layout, received, layout, soon());
    std::memcpy(one.data.data(), received.data(), payload);
    return result;
  });
  require_cost(exchanged, cost(CollectiveKind::AllToAll, Algorithm::Direct));
  require_cost(run(size, 0, [&](Run& one) { return tree_barrier(one.transport, soon()); }),
               cost(CollectiveKind::Barrier, Algorithm::Tree));
}

TEST_CASE("ranks that share memory use it, others halve, ring or climb a tree") {
  const Bytes small(1024), large(64 << 20);
  CHECK(choose_algorithm(CollectiveKind::AllReduce, large, 4, true) == Algorithm::SharedMemory);
  CHECK(choose_algorithm(CollectiveKind::AllReduce, large, 4, false) == Algorithm::RecursiveHalving);
  CHECK(choose_algorithm(CollectiveKind::AllReduce, large, 6, false) == Algorithm::Ring);
  CHECK(choose_algorithm(CollectiveKind::AllReduce, small, 6, false) == Algorithm::Tree);
  CHECK(choose_algorithm(CollectiveKind::AllGather, large, 6, false) == Algorithm::Ring);
  CHECK(choose_algorithm(CollectiveKind::AllGather, small, 6, false) == Algorithm::Direct);
  CHECK(choose_algorithm(CollectiveKind::ReduceScatter, large, 6, true) == Algorithm::SharedMemory);
  CHECK(choose_algorithm(CollectiveKind::AllToAll, large, 6, true) == Algorithm::Direct);
  CHECK(choose_algorithm(CollectiveKind::SendReceive, large, 2, true) == Algorithm::Direct);
  CHECK(choose_algorithm(CollectiveKind::Barrier, Bytes(0), 3, false) == Algorithm::Tree);
}

TEST_CASE("what was chosen never costs more bytes than another algorithm of few steps") {
  for (const int size : {2, 3, 4, 6, 8, 64}) {
    const Bytes payload(64 << 20);
    const auto chosen = cost_of(CollectiveKind::AllReduce,
                                choose_algorithm(CollectiveKind::AllReduce, payload, size, false), payload, size);
    for (const Algorithm other : {Algorithm::Ring, Algorithm::RecursiveHalving, Algorithm::Tree}) {
      CHECK(chosen.sent_bytes <= cost_of(CollectiveKind::AllReduce, other, payload, size).sent_bytes);
    }
  }
}

TEST_CASE("one rank pays nothing") {
  CHECK(cost_of(CollectiveKind::AllReduce, Algorithm::SharedMemory, Bytes(1000), 1).num_steps == 0);
  CHECK(cost_of(CollectiveKind::Barrier, Algorithm::Tree, Bytes(0), 1).num_steps == 0);
}
