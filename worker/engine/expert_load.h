#pragma once
// How unevenly routers choose among experts, seen where rows are grouped (expert_linear). Called by the profiler, which
// the cost model reads (docs/cost_model.md, C32). Threads: sees the products of its own thread. Private to
// worker/engine.

namespace coxswain::worker {

struct ExpertGroups;

/// From its construction to its end; one at a time on a thread.
class ExpertLoadWatch {
 public:
  ExpertLoadWatch();
  ~ExpertLoadWatch();
  ExpertLoadWatch(const ExpertLoadWatch&) = delete;
  ExpertLoadWatch& operator=(const ExpertLoadWatch&) = delete;

  /// Mean over the products since the last call of the experts' squared coefficient of variation (variance of their
  /// rows over the squared mean); 0 without any.
  [[nodiscard]] double take_squared_cv();
  void add(const ExpertGroups& groups);

 private:
  double sum_ = 0;
  int products_ = 0;
};

/// Tells the thread's watch, if there is one.
void watch_load(const ExpertGroups& groups);

}  // namespace coxswain::worker
