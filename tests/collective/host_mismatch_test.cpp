// Ranks that call different operations: none of them gets a wrong result, and every rank's error names both sides.
#include "collective/operation_mark.h"
#include "tests/collective/ranks.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::collective;

namespace {

constexpr int kDone = 0;

std::vector<std::string> nodes_of(const std::string& letters) {
  std::vector<std::string> nodes;
  for (const char letter : letters) nodes.emplace_back(1, letter);
  return nodes;
}

/// Each rank's call; the last rank of a case makes the other one.
struct Case {
  std::string name;
  Handle (*call)(Communicator& communicator, bool odd, std::vector<std::byte>& memory, Deadline deadline);
  std::string text, odd_text;  // both of them stand in every rank's error
};

BufferView view(std::vector<std::byte>& memory, std::int64_t count, DType dtype) {
  return {memory.data(), count, dtype};
}

/// Each rank has `count` of the whole.
std::vector<std::int64_t> equal_counts(const Communicator& communicator, std::int64_t count) {
  return std::vector<std::int64_t>(static_cast<std::size_t>(communicator.size()), count);
}

const std::vector<Case> kCases = {
    {"counts of a small all_reduce",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return c.all_reduce(view(memory, odd ? 200 : 100, DType::Float32), ReduceOp::Sum, deadline);
     },
     "all_reduce of 100 float32, sum", "all_reduce of 200 float32, sum"},
    {"counts of a large all_reduce",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return c.all_reduce(view(memory, odd ? 400000 : 500000, DType::Float32), ReduceOp::Sum, deadline);
     },
     "all_reduce of 500000 float32, sum", "all_reduce of 400000 float32, sum"},
    {"a small and a large all_reduce",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return c.all_reduce(view(memory, odd ? 500000 : 10, DType::Float32), ReduceOp::Sum, deadline);
     },
     "all_reduce of 10 float32, sum", "all_reduce of 500000 float32, sum"},
    {"dtypes of as many bytes",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return c.all_reduce(view(memory, 100, odd ? DType::Int32 : DType::Float32), ReduceOp::Sum, deadline);
     },
     "all_reduce of 100 float32, sum", "all_reduce of 100 int32, sum"},
    {"sum and maximum",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return c.all_reduce(view(memory, 100, DType::Float32), odd ? ReduceOp::Max : ReduceOp::Sum, deadline);
     },
     "all_reduce of 100 float32, sum", "all_reduce of 100 float32, max"},
    {"all_reduce and barrier",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return odd ? c.barrier(deadline) : c.all_reduce(view(memory, 100, DType::Float32), ReduceOp::Sum, deadline);
     },
     "all_reduce of 100 float32, sum", "barrier"},
    {"parts of an all_gather",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       auto counts = equal_counts(c, odd ? 30 : 20);
       const auto total = static_cast<std::int64_t>(counts.size()) * counts.front();
       const auto own = counts.front();
       return c.all_gather(view(memory, own, DType::Float32), view(memory, total, DType::Float32), std::move(counts),
                           deadline);
     },
     "all_gather of ", "all_gather of "},
    {"all_reduce and a receive",
     [](Communicator& c, bool odd, std::vector<std::byte>& memory, Deadline deadline) {
       return odd ? c.recv(view(memory, 64, DType::Int64), 0, deadline)
                  : c.all_reduce(view(memory, 100, DType::Float32), ReduceOp::Sum, deadline);
     },
     "all_reduce of 100 float32, sum", "a message of 64 int64"},
};

}  // namespace

TEST_CASE("operations that differ end the communicator, both sides named on every rank") {
  const std::string nodes = GENERATE("aa", "ab", "aaa", "abc", "aab");
  for (const Case& one : kCases) {
    CAPTURE(nodes, one.name);
    const auto body = [&](Rank& rank) {
      const auto communicator = rank.communicator();
      if (!communicator) return;
      // One operation before, so that numbers are not all the first.
      (void)communicator->barrier(soon()).wait(soon());
      std::vector<std::byte> memory(4000000);
      const bool odd = rank.rank == rank.size - 1;
      Handle handle = one.call(*communicator, odd, memory, in_milliseconds(3000));
      const auto result = handle.wait(soon());
      rank.report.expect(!result, "no error");
      if (result) return;
      const std::string text = to_text(result.error());
      for (const std::string& wanted : {one.text, one.odd_text})
        rank.report.expect(text.find(wanted) != std::string::npos, "got: " + text);
      rank.board.mark(kDone);
      rank.board.await(kDone, rank.size, soon());
    };
    CHECK(run_threads(nodes_of(nodes), body) == "");
  }
}

TEST_CASE("a message of another size or dtype than its receive is refused, both sides named") {
  const std::string nodes = GENERATE("aa", "ab");
  const bool dtypes = GENERATE(false, true);
  CAPTURE(nodes, dtypes);
  const auto body = [&](Rank& rank) {
    const auto communicator = rank.communicator();
    if (!communicator) return;
    std::vector<float> data(300, 1.0f);
    // A good one first.
    const auto pass = [&](std::int64_t count, DType dtype) {
      const BufferView view{data.data(), count, dtype};
      return rank.rank == 0 ? communicator->send(view, 1, soon()) : communicator->recv(view, 0, soon());
    };
    const auto good = pass(300, DType::Float32).wait(soon());
    rank.report.expect(good.has_value(), good ? "" : to_text(good.error()));
    Handle sent =
        rank.rank == 0 ? pass(100, DType::Float32) : pass(dtypes ? 100 : 99, dtypes ? DType::Int32 : DType::Float32);
    auto result = sent.wait(soon());
    // What was sent may be gone before the other side looks at it.
    if (rank.rank == 0 && result) result = communicator->barrier(soon()).wait(soon());
    rank.report.expect(!result, "no error");
    if (result) return;
    const std::string text = to_text(result.error());
    rank.report.expect(text.find("rank 0: a message of 100 float32 (number 2)") != std::string::npos, "got: " + text);
    rank.report.expect(text.find(dtypes ? "rank 1: a message of 100 int32 (number 2)"
                                        : "rank 1: a message of 99 float32 (number 2)") != std::string::npos,
                       "got: " + text);
    rank.board.mark(kDone);
    rank.board.await(kDone, 2, soon());
  };
  CHECK(run_threads(nodes_of(nodes), body) == "");
}

TEST_CASE("a rank that calls nothing is named at the deadline, with what the others do") {
  const std::string nodes = GENERATE("aa", "ab");
  CAPTURE(nodes);
  const auto body = [&](Rank& rank) {
    const auto communicator = rank.communicator();
    if (!communicator) return;
    (void)communicator->barrier(soon()).wait(soon());
    float value = 1;
    if (rank.rank == 0) {
      const auto result =
          communicator->all_reduce({&value, 1, DType::Float32}, ReduceOp::Sum, in_milliseconds(100)).wait(soon());
      rank.report.expect(!result && result.error().code == ErrorCode::DeadlineExceeded, "no deadline");
      const std::string text = result ? "" : to_text(result.error());
      rank.report.expect(
          text.find("rank 0: all_reduce of 1 float32, sum (collective 2); rank 1: no operation") != std::string::npos,
          "got: " + text);
      rank.board.mark(kDone);
    }
    rank.board.await(kDone, 1, soon());
  };
  CHECK(run_threads(nodes_of(nodes), body) == "");
}

TEST_CASE("marks in words") {
  CHECK(to_text(OperationMark{}) == "no operation");
  OperationMark foreign;
  foreign.magic = 0;
  CHECK(to_text(foreign) == "the rest of a longer operation");
  CHECK(to_text(OperationMark::of(OperationMark::kBroadcast, {nullptr, 3, DType::Int8}, 2)) ==
        "broadcast of 3 int8 from rank 2");
}
