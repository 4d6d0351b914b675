#pragma once
// What a rank needs besides model and plan, as plain values (the service decodes it from the assignment; the engine
// sees no protobuf). Threads: pure values. Source: INTERFACE section 2, DESIGN 3.7.
#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace coxswain::worker {

struct OptimizerSettings {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_grad_norm = 1.0;        // 0: none
  bool skip_non_finite = false;       // a step whose loss or gradients are not finite is skipped; else it ends the run
  double initial_loss_scale = 65536;  // under float16; a power of two
  std::int64_t warmup_steps = 0;
  std::string decay = "cosine";  // or "constant"
  double min_ratio = 0.1;
};

struct DataSettings {
  std::string text;                    // file; bytes are tokens
  std::string tensors;                 // or a safetensors file: one row a sample, by the names of the model's inputs
  std::int64_t sequence_length = 128;  // of a text
  std::uint64_t seed = 0;
  double validation_fraction = 0;
  std::int64_t validation_steps = 0;
};

struct TrainSettings {
  OptimizerSettings optimizer;
  DataSettings data;
  std::int64_t steps = 1;
  std::uint64_t seed = 0;
  bool dropout = true;  // false: dropout is the identity in training too (tests)
  int threads = 1;      // of this rank, set before the first parallel region
  /// That blocks are profiled in; what is trained has the plan's.
  plan::Precision precision = plan::Precision::Float32;
};

}  // namespace coxswain::worker
