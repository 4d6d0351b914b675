#pragma once
// Sailor's own inputs: one JSON document with the names of its arguments, and the files that it names (training and
// cluster configuration, quotas, sizes of a model's layers, profiles by GPU type, network coefficients, cost of
// traffic). They become an instance and its tables. Called by sailor. Threads: pure apart from reading files. Source:
// the files that Sailor ships; docs/exchange.md.
#include <filesystem>
#include <map>
#include <string>

#include "planner/problems/sailor.h"

namespace coxswain::planner {

/// Has `json` the arguments of Sailor's planner instead of an instance?
[[nodiscard]] bool is_sailor_search(const Json& json);

/// What the files hold.
struct SailorFiles {
  Json training, cluster, quotas, sizes, network, traffic;
  std::map<std::string, Json> profiles;  // by GPU type, of those that the quotas name
};
struct SailorDocuments {
  Json instance;
  SailorTexts texts;  // as parse_sailor reads them
};
/// `arguments` may hold objective (throughput when absent), max_usd_per_iteration, min_iterations_per_s and
/// usd_per_hour (by GPU type; 0 when absent). Between GPUs of one type a missing curve is that of the smaller number of
/// GPUs; between two types, the slower of the two types' own curves. Errors: InvalidArgument, every problem listed.
[[nodiscard]] Result<SailorDocuments> convert_sailor(const Json& arguments, const SailorFiles& files);
/// The same with the files read from training_config_json, basic_cluster_config_json, quotas_dict, llm_info,
/// network_coeff_path, communication_cost and sailor_profile_file_dir (a folder with TYPE/profile.json), relative to
/// the folder of `file`.
[[nodiscard]] Result<SailorDocuments> convert_sailor(const Json& arguments, const std::filesystem::path& file);

}  // namespace coxswain::planner
