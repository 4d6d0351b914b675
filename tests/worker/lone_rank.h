#pragma once
// One rank of a plan alone in this process, whose peers are made up: what it would get from them is zeros. Its losses
// mean nothing; what it holds and when is what it would be among real ones. For tests of memory. Threads: one.
#include <cstring>

#include "executor/executor.h"
#include "tests/worker/engine_support.h"
#include "worker/engine/caching_allocator.h"

namespace coxswain::tests {

/// Not done at the first look, so that what may run beside it begins.
struct LateOperation final : collective::Handle::State {
  mutable bool looked = false;
  [[nodiscard]] bool done() const override { return std::exchange(looked, true); }
  Result<void> wait(Deadline) override { return {}; }
};

class LoneCommunicator final : public collective::Communicator {
 public:
  LoneCommunicator(int rank, int size) : rank_(rank), size_(size) { capabilities_.name = "alone"; }
  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  [[nodiscard]] const collective::Capabilities& capabilities() const override { return capabilities_; }
  collective::Handle all_reduce(collective::BufferView, collective::ReduceOp, Deadline) override { return late(); }
  collective::Handle broadcast(collective::BufferView, int, Deadline) override { return late(); }
  collective::Handle barrier(Deadline) override { return late(); }
  collective::Handle exchange(std::vector<collective::PointToPoint> operations, Deadline) override {
    for (const auto& one : operations)
      if (one.kind == collective::PointToPoint::Kind::Receive) clear(one.buffer.data, one.buffer.bytes().value);
    return late();
  }
  collective::Handle all_gather(collective::BufferView input, collective::BufferView output,
                                std::vector<std::int64_t> counts, Deadline) override {
    char* at = static_cast<char*>(output.data);
    for (int r = 0; r < size_; ++r) {
      const std::int64_t bytes = counts[r] * size_of(output.dtype).value;
      if (at != input.data) clear(at, bytes);
      at += bytes;
    }
    return late();
  }
  collective::Handle reduce_scatter(collective::BufferView, collective::BufferView output, std::vector<std::int64_t>,
                                    collective::ReduceOp, Deadline) override {
    clear(output.data, output.bytes().value);
    return late();
  }
  collective::Handle all_to_all(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                std::vector<std::int64_t>, Deadline) override {
    COX_ENSURE(false, "not in this fake");
    return {};
  }
  Result<std::unique_ptr<Communicator>> split(std::vector<int>, Deadline) override {
    return Error{ErrorCode::Unimplemented, "not in this fake", "", "", "", ""};
  }
  Result<std::shared_ptr<void>> allocate_registered(Bytes) override { return std::shared_ptr<void>(); }
  void abort(std::string) override {}

 private:
  static collective::Handle late() { return collective::Handle(std::make_shared<LateOperation>()); }
  static void clear(void* data, std::int64_t bytes) {
    if (bytes > 0) std::memset(data, 0, static_cast<std::size_t>(bytes));
  }
  int rank_, size_;
  collective::Capabilities capabilities_;
};

/// Bytes of the caching allocator above what was in use before the rank came.
struct Footprint {
  std::int64_t persistent = 0;  // before its first step
  std::int64_t peak = 0;        // over two steps
};

inline Footprint measure_rank(const model::ModelGraph& graph, const plan::Plan& plan, int rank,
                              worker::TrainSettings settings) {
  settings.dropout = false;
  std::vector<std::unique_ptr<LoneCommunicator>> owned;
  std::vector<collective::Communicator*> communicators;
  for (const plan::Group& group : plan::make_groups(plan, graph)) {
    const auto at = std::find(group.ranks.begin(), group.ranks.end(), rank);
    owned.push_back(at == group.ranks.end()
                        ? nullptr
                        : std::make_unique<LoneCommunicator>(static_cast<int>(at - group.ranks.begin()),
                                                             static_cast<int>(group.ranks.size())));
    communicators.push_back(owned.back().get());
  }
  const auto run = [&]() -> Result<Footprint> {
    Footprint footprint;
    const std::int64_t before = worker::memory_in_use().value;
    COX_TRY(auto engine, worker::make_engine({&graph, &plan, rank, settings, communicators}));
    footprint.persistent = worker::memory_in_use().value - before;
    const plan::RankProgram program = plan::make_rank_program(plan, graph, rank);
    collective::CompletionSignal signal;
    worker::reset_memory_peak();
    for (std::int64_t step = 1; step <= 2; ++step) {
      COX_TRY_VOID(engine->begin_step(step));
      COX_TRY_VOID(run_program(program, *engine, communicators, signal));
      COX_TRY_VOID(engine->end_step());
    }
    footprint.peak = worker::memory_peak().value - before;
    return footprint;
  };
  const auto footprint = run();
  if (!footprint) throw std::runtime_error(to_text(footprint.error()));
  return *footprint;
}

}  // namespace coxswain::tests
