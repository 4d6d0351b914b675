#pragma once
// How many rows (a token for each expert that it chose) routers gave to each expert in a training pass: counted where
// the list of choices is made, of this rank's rows alone; REDUCE_NORM adds up all ranks'. Called by engine, which hands
// the counters to the operators that make the lists. Threads: the engine's one. Private to worker/engine.
// Source: docs/plan.md, "Experts".
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <span>
#include <vector>

#include "plan/experts.h"
#include "worker/engine/mesh_link.h"

namespace coxswain::worker {

/// Of one list of choices.
struct ExpertCounter {
  model::ValueId indices = -1;
  std::span<double> counts;  // by expert; whole numbers
  void add(const at::Tensor& chosen) const;
};

class ExpertTokens {
 public:
  /// Of the whole model; those of other stages stay 0, and those that another position of the mesh counts.
  explicit ExpertTokens(const LocalView& view);
  ExpertTokens(const ExpertTokens&) = delete;
  ExpertTokens& operator=(const ExpertTokens&) = delete;

  /// What counts `indices`; valid as long as this. Null: nothing is counted here.
  [[nodiscard]] const ExpertCounter* find(model::ValueId indices) const;
  /// A pass begins.
  void restart();
  /// Choice after choice in the order of plan::expert_choices, by expert.
  [[nodiscard]] const std::vector<double>& counts() const { return counts_; }

 private:
  std::vector<double> counts_;
  std::vector<ExpertCounter> counters_;
};

}  // namespace coxswain::worker
