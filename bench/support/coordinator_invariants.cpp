#include "bench/support/coordinator_invariants.h"

#include <algorithm>

namespace coxswain::bench {

void Invariants::require(bool holds, const std::string& what) {
  if (!holds && !broken_) broken_ = what;
}

void Invariants::process_started(int node, int generation, int rank) {
  const std::string what = "rank " + std::to_string(rank) + " of generation " + std::to_string(generation);
  Node& on = nodes_[static_cast<std::size_t>(node)];
  for (const auto& [other, count] : on.processes)
    require(other == generation,
            what + " begins on node " + std::to_string(node) + " beside generation " + std::to_string(other));
  if (!processes_.empty() && !on.lost)
    require(processes_.begin()->first >= generation,
            what + " begins while generation " + std::to_string(processes_.begin()->first) + " still runs");
  std::vector<char>& running = ranks_[generation];
  if (running.size() <= static_cast<std::size_t>(rank)) running.resize(static_cast<std::size_t>(rank) + 1, 0);
  require(running[static_cast<std::size_t>(rank)] == 0, what + " runs twice");
  running[static_cast<std::size_t>(rank)] = 1;
  ++on.processes[generation];
  if (!on.lost) ++processes_[generation];
}

void Invariants::process_ended(int node, int generation, int rank) {
  Node& on = nodes_[static_cast<std::size_t>(node)];
  if (const auto running = ranks_.find(generation); running != ranks_.end())
    running->second[static_cast<std::size_t>(rank)] = 0;
  if (--on.processes[generation] == 0) on.processes.erase(generation);
  if (!on.lost && --processes_[generation] == 0) processes_.erase(generation);
}

void Invariants::node_lost(int node) {
  Node& on = nodes_[static_cast<std::size_t>(node)];
  if (on.lost) return;
  on.lost = true;
  ++num_lost_;
  for (const auto& [generation, count] : on.processes) {
    if ((processes_[generation] -= count) == 0) processes_.erase(generation);
  }
}

int Invariants::num_processes() const {
  int count = 0;
  for (const auto& [generation, processes] : processes_) count += processes;
  return count;
}

void Invariants::event(const Json& event) {
  const std::string& type = event["type"].string();
  if (type == "recovered") restarts_in_a_row_ = 0;
  if (type != "generation_started") return;
  const auto generation = static_cast<int>(event["generation"].integer());
  require(generation == generation_ + 1,
          "generation " + std::to_string(generation) + " follows " + std::to_string(generation_));
  generation_ = generation;
  if (generation > 1) {
    ++restarts_in_a_row_;
    last_step_ = event["after_step"].integer();
    if (event["from"] == Json("memory")) recovers_to(last_step_);
  }
  ranks_.erase(ranks_.begin(), ranks_.lower_bound(generation - 3));
}

void Invariants::step(const launcher::StepRow& row) {
  const std::string what = "step " + std::to_string(row.step) + " of generation " + std::to_string(row.generation);
  require(row.generation == generation_, what + " is recorded in generation " + std::to_string(generation_));
  require(row.step == last_step_ + 1, what + " follows step " + std::to_string(last_step_));
  // The simulated ranks put their generation there; of one that was gone before it told of the step it is 0.
  const bool own = std::all_of(row.resident_bytes.begin(), row.resident_bytes.end(),
                               [&row](std::int64_t from) { return from == row.generation || from == 0; });
  require(own, what + " is made of reports of another generation");
  last_step_ = row.step;
  const auto index = static_cast<std::size_t>(std::max<std::int64_t>(row.step, 0));
  if (recorded_.size() <= index) recorded_.resize(index + 1, 0);
  recorded_[index] = 1;
}

void Invariants::recovers_to(std::int64_t step) {
  for (std::int64_t s = 1; s <= step; ++s) {
    const bool known = static_cast<std::size_t>(s) < recorded_.size() && recorded_[static_cast<std::size_t>(s)] != 0;
    require(known, "what there is of step " + std::to_string(step) + " is gone on from, and step " + std::to_string(s) +
                       " was never recorded");
  }
}

void Invariants::ended_well(std::int64_t steps) {
  recovers_to(steps);
  require(last_step_ == steps,
          "the run ended well after step " + std::to_string(last_step_) + " of " + std::to_string(steps));
}

}  // namespace coxswain::bench
