#pragma once
// What has to hold in every simulated run, whatever happens to it. Told by the world of every process that begins and
// ends, every line that reaches a file; keeps the first violation in words. Called by coordinator_world and its parts.
// Threads: one. Source: issue 6, row k; docs/reliability.md.
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/exit_code.h"
#include "common/json.h"
#include "launcher/control/step_row.h"

namespace coxswain::bench {

class Invariants {
 public:
  explicit Invariants(int num_nodes) : nodes_(static_cast<std::size_t>(num_nodes)) {}

  void require(bool holds, const std::string& what);
  [[nodiscard]] const std::optional<std::string>& broken() const { return broken_; }

  // Processes: I1, at most one generation has some on a node; I2, none begins while one of an older generation is left
  // on a node that is not lost; I3, no rank of a generation twice.
  void process_started(int node, int generation, int rank);
  void process_ended(int node, int generation, int rank);
  void node_lost(int node);
  [[nodiscard]] int num_lost() const { return num_lost_; }
  [[nodiscard]] bool is_lost(int node) const { return nodes_[static_cast<std::size_t>(node)].lost; }
  /// Of all nodes that are not lost.
  [[nodiscard]] int num_processes() const;

  // Lines that reach a file: I4, generations count up; I5, steps of a generation follow each other from where it began,
  // each out of reports of that generation, each once.
  void event(const Json& event);
  void step(const launcher::StepRow& row);
  /// I6: what a checkpoint, or the memory of ranks, holds stands in the record.
  void recovers_to(std::int64_t step);

  /// Restarts since the last step that is further than where a run failed.
  [[nodiscard]] int restarts_in_a_row() const { return restarts_in_a_row_; }
  [[nodiscard]] int generation() const { return generation_; }
  [[nodiscard]] std::int64_t last_step() const { return last_step_; }
  /// I7: a run that ends well took every step.
  void ended_well(std::int64_t steps);

 private:
  struct Node {
    bool lost = false;
    std::map<int, int> processes;  // by generation
  };
  std::vector<Node> nodes_;
  std::map<int, int> processes_;            // by generation, on nodes that are not lost
  std::map<int, std::vector<char>> ranks_;  // by generation: it runs
  int num_lost_ = 0, generation_ = 0, restarts_in_a_row_ = 0;
  std::int64_t last_step_ = 0;
  std::vector<char> recorded_;  // by step
  std::optional<std::string> broken_;
};

}  // namespace coxswain::bench
