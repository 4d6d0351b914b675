#pragma once
// Galvatron's own profiles: one JSON document with the names of its search arguments, and the files that it names
// (computation, memory, all-reduce and point-to-point bandwidth, overlap, messages by size). They become an instance as
// Galvatron itself prepares them: times by a least-squares line over the measured batches, message times likewise,
// bandwidths as milliseconds a MB. Called by galvatron. Threads: pure apart from reading files.
// Source: the formats that Galvatron documents for a standalone search; docs/exchange.md.
#include <filesystem>
#include <string>

#include "common/json.h"
#include "common/result.h"

namespace coxswain::planner {

/// Has `json` the arguments of a search instead of an instance?
[[nodiscard]] bool is_galvatron_search(const Json& json);

/// What the six files hold.
struct GalvatronProfiles {
  Json time, memory, all_reduce, p2p, overlap, messages;
};
/// Arguments: num_nodes, num_gpus_per_node, memory_constraint (GB), global_batch_size, num_layers, hidden_size,
/// seq_length, max_tp_deg, max_sp_deg (equal), chunks (may be absent). Errors: InvalidArgument, every problem listed.
[[nodiscard]] Result<Json> convert_galvatron(const Json& arguments, const GalvatronProfiles& profiles);
/// The same with the files read from time_profiling_path, memory_profiling_path, allreduce_bandwidth_config_path,
/// p2p_bandwidth_config_path, overlap_coe_path and sp_time_path, relative to the folder of `file`.
[[nodiscard]] Result<Json> convert_galvatron(const Json& arguments, const std::filesystem::path& file);

}  // namespace coxswain::planner
