#pragma once
// One finished step as all ranks told it. Made by OpenSteps, read by what writes metrics, console and trace. Threads:
// pure values.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace coxswain::launcher {

/// When a rank's actions ran in a traced step; control.proto says what the clock's numbers mean.
struct RankTrace {
  std::int64_t begin_nanoseconds = 0, clock_offset_nanoseconds = 0, clock_error_nanoseconds = 0;
  double step_seconds = 0;
  std::vector<double> start, end;  // by action, seconds since the step's begin
};

/// Rows that a router gave to each expert of a block, from all ranks.
struct ExpertTokens {
  int block = 0;
  std::vector<std::int64_t> tokens;  // by expert
};

struct StepRow {
  std::int64_t step = 0;
  int generation = 1;
  double loss = 0, grad_norm = 0, learning_rate = 0;
  double step_seconds = 0;                                      // the slowest rank's
  double bubble_fraction = 0;                                   // mean over ranks
  std::vector<std::int64_t> peak_memory_bytes, resident_bytes;  // by rank
  std::optional<double> validation_loss;
  bool skipped = false;      // no parameter was updated
  int not_finite_rank = -1;  // of a skipped step: the first that saw it, a loss before gradients (they follow)
  std::string not_finite;    // "the loss is", "the gradients are"
  double loss_scale = 0;     // 0: not scaled
  std::vector<ExpertTokens> expert_tokens;  // by router; empty: the model has no experts
  std::vector<RankTrace> traces;            // by rank; empty where no trace was asked for
};

}  // namespace coxswain::launcher
