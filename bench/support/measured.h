#pragma once
// Published training runs (tables as lm_throughput.csv with devices.json beside it) as recipes with measured steps.
// What a row does not say is taken from its framework and notes by the rules in measured.cpp; a row that lacks what is
// needed is kept with its reason. Called by bench/cost_accuracy. Threads: pure apart from the file system.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "cost_model/fit_efficiency.h"

namespace coxswain::bench {

struct MeasuredRow {
  std::string id, group;
  std::string machine;  // source and device: rows of one machine under several tags or models share it
  bool experts = false, narrow = false, sharded = false;  // MoE, 8 or 4 bits, ZeRO 3 or FSDP
  cost_model::MeasuredRecipe measured;
};

struct UnpredictedRow {
  std::string id, group, reason;
};

struct MeasuredTables {
  std::vector<MeasuredRow> rows;
  std::vector<UnpredictedRow> unpredicted;
};

/// The rows of `score_set` ("all": every row with a time). `devices`: devices.json, may be null; the catalogue goes
/// first. Every row of the set is in one of the two lists.
[[nodiscard]] MeasuredTables read_measured(std::string_view throughput_csv, const Json& devices,
                                           const std::string& score_set);

/// From DIR/lm_throughput.csv and DIR/devices.json. Errors: NotFound without the table; devices.json may be missing.
[[nodiscard]] Result<MeasuredTables> read_measured_folder(const std::filesystem::path& folder,
                                                          const std::string& score_set);

/// The machine of `gpu` with `per_node` devices over `link`, the text of a table's inter_node_link. A rate in the text
/// is taken (`400 Gbps per GPU`, `1600 Gbps/node`, `8x ... 400Gb/s`), else that of a system of the device's time.
/// Errors: NotFound for a device of neither the catalogue nor `devices`.
[[nodiscard]] Result<cost_model::RecipeMachine> measured_machine(const std::string& gpu, double per_node,
                                                                 const std::string& link, const Json& devices);

}  // namespace coxswain::bench
