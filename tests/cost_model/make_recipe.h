#pragma once
// A machine and constants in which one term of C40-C52 at a time costs anything: rates of 1000 FLOP/s, links of 100
// bytes a second, memory and host that cost nothing.
#include "cost_model/recipe_time.h"

namespace coxswain::test_support {

inline cluster::LinkClass make_recipe_link(const char* name, double latency, double bandwidth) {
  cluster::LinkClass link;
  link.name = name;
  link.latency.value = Seconds(latency);
  link.bandwidth.value = BytesPerSecond(bandwidth);
  return link;
}

inline cost_model::RecipeMachine make_recipe_machine() {
  cost_model::RecipeMachine machine;
  machine.device.name = "d";
  machine.device.peak_bfloat16.value = FlopPerSecond(1000);
  machine.device.memory_bandwidth.value = BytesPerSecond(1e30);
  machine.node_link = make_recipe_link("node", 0, 100);
  machine.network = make_recipe_link("net", 0, 10);
  machine.domain_devices = 2;
  return machine;
}

/// Everything at its datasheet, nothing overlaps, the host is free.
inline cost_model::Efficiency make_plain_efficiency() {
  cost_model::Efficiency e;
  for (const auto& term : cost_model::efficiency_terms()) e.*(term.value) = 1;
  e.host_seconds = 0;
  e.step_seconds = 0;
  e.gradient_overlap = 0;
  return e;
}

/// One block: 40,000 weights in attention and 200,000 in the MLP; 10 tokens of 100 elements.
inline cost_model::TransformerShape make_small_shape() {
  cost_model::TransformerShape shape;
  shape.hidden = 100;
  shape.ffn_hidden = 1000;
  shape.vocabulary = 10;
  shape.sequence = 10;
  return shape;
}

}  // namespace coxswain::test_support
