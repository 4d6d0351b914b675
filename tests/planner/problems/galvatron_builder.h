#pragma once
// A small Galvatron-2 instance whose numbers name their terms. For tests.
#include "planner/problems/galvatron.h"

namespace coxswain::planner {

inline GalvatronMessages line_messages(double slope, double intercept) { return {{}, {slope, intercept}}; }

/// One sample's message is 1 MB: sequence x hidden x 2 bytes.
inline GalvatronInstance small_galvatron(int gpus, int layers) {
  GalvatronInstance instance;
  instance.gpus = gpus;
  instance.layers = layers;
  instance.max_degree = gpus;
  instance.memory_mb = 20000;
  instance.sequence = 512;
  instance.hidden = 1024;
  instance.global_batch = 8;
  instance.layer_parameter_mb = 64;
  instance.layer_forward_ms = {10, 1};
  instance.end_forward_ms = {20, 2};
  instance.checkpoint_activation_mb = 10;
  for (int degree = 1; degree <= gpus; degree *= 2) {
    instance.layer_activation_mb[degree] = 400.0 / degree;
    instance.whole.model_states_mb[degree] = 800.0 / degree;
    instance.whole.activation_mb_per_sample[degree] = 80.0 / degree;
    instance.first.model_states_mb[degree] = instance.last.model_states_mb[degree] = 400.0 / degree;
    instance.first.activation_mb_per_sample[degree] = instance.last.activation_mb_per_sample[degree] = 40.0 / degree;
    for (const char* suffix : {"", "_0", "_1"})
      instance.all_reduce_ms_per_mb[std::to_string(degree) + suffix] = degree == 1 ? 0 : 0.25;
    instance.p2p_ms_per_mb[degree] = 0.5;
    instance.all_gather[degree] = line_messages(0.5, 0.125);
    instance.all_to_all[degree] = line_messages(0.25, 0.0625);
  }
  instance.overlap_slowdown = 1.25;
  return instance;
}

}  // namespace coxswain::planner
