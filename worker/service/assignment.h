#pragma once
// What this rank is to do, as plain values; decoded from the agent's message. Threads: pure values.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/manifest.h"
#include "common/result.h"
#include "common/units.h"
#include "model/model_graph.h"
#include "worker/settings.h"

namespace coxswain::worker {

enum class Mode { Train, Measure, Check };

struct Assignment {
  Mode mode = Mode::Train;
  int rank = 0, world_size = 1, generation = 1;
  std::string run_id, backend;
  std::string node;                // ranks of one agent share it
  std::vector<std::string> nodes;  // of every rank: equal text = same node
  int num_nodes = 1;               // of the run, with and without ranks
  std::string local_addr, scratch_dir, device_class;
  std::string log_folder;        // where the output of a process that is kept goes on; empty: where it goes
  std::string pt2, config_json;  // the model: one of the two, or neither
  std::int64_t sequence_length = 0;
  std::string plan_json;
  TrainSettings settings;
  std::int64_t validation_every = 0;
  /// Steps with the times of their actions: [first, last] of each, which may overlap.
  std::vector<std::pair<std::int64_t, std::int64_t>> traced_steps;
  std::string checkpoint_directory;   // empty: nothing is saved
  std::int64_t checkpoint_every = 0;  // steps; 0: when the agent asks
  std::string checkpoint_from;        // a folder to go on from; empty: none
  /// Instead: ranks that kept their process hold this in memory, of a step that this generation took.
  std::optional<checkpoint::Progress> from_memory;
  int from_memory_generation = 0;
  std::optional<bool> shares_checkpoints;  // all nodes see the same files there; nothing: it is to be found out
  std::string from_manifest;  // where the shards of checkpoint_from lie on several nodes: its manifest's text
  std::map<std::string, std::vector<std::string>> holders;  // by shard, addresses of nodes that have it
  std::string files_address, copy_to;  // of this node, and of the one that gets copies (empty: none)
  std::vector<std::int64_t> profile_samples;
  Seconds rates_budget{0}, profile_budget{0}, step_timeout{0}, connect_timeout{0};
  Seconds action_timeout{0};  // of one compute action; 0: it is not watched
  Seconds stall_timeout{0};   // without anything that ends, until the rank says so; 0: never
};

/// `command`: a serialised WorkerCommand that holds an assignment. Errors: Internal.
[[nodiscard]] Result<Assignment> decode_assignment(std::string_view command);

/// Errors: of the readers.
[[nodiscard]] Result<model::ModelGraph> load_graph(const Assignment& assignment);

}  // namespace coxswain::worker
