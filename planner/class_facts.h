#pragma once
// What each device class does under a plan: the table that answers "which cards do tensor parallelism", "how many
// samples has each", "how busy, how full". Threads: pure.
#include <string>
#include <vector>

#include "common/json.h"
#include "cost_model/cost_model.h"

namespace coxswain::planner {

struct ClassFacts {
  std::string device;
  std::int64_t used = 0, there = 0;
  std::vector<int> tensor;             // degrees, ascending, each once
  std::vector<int> stages;             // ascending
  std::vector<std::int64_t> samples;   // of a micro-batch on one replica, ascending, each once
  int first_block = 0, end_block = 0;  // from the lowest to the highest that it runs
  double busy_fraction = 0;            // mean over its devices
  Bytes capacity{0};
  plan::MemoryParts fullest;  // of its fullest device
};
/// One entry a device class of the cluster, in its order; classes without devices are left out.
[[nodiscard]] std::vector<ClassFacts> class_facts(const cluster::ResourceGraph& graph, const plan::Plan& plan,
                                                  const plan::Estimate& estimate);
[[nodiscard]] std::string class_table(const std::vector<ClassFacts>& facts);
[[nodiscard]] Json class_json(const std::vector<ClassFacts>& facts);

}  // namespace coxswain::planner
