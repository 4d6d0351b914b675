#pragma once
// What the published planning problems share: an instance in, an answer in its documented form out. Each family is a
// Problem of its own for the same label search (label_search.h) under its peer's cost function; none uses our cost
// model unless it says so. Called by bench/contests and by `launch plan --import`. Threads: pure values.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace coxswain::planner {

struct ContestOptions {
  /// Sailor: replicas x micro-batch must divide the global batch.
  bool strict = false;
  /// AMP's measured row: rank by our own cost model, without the instance's measured times.
  bool own_cost_model = false;
};

struct ContestAnswer {
  Json answer;                  // as the family's README documents it
  double score = 0;             // by the peer's formulas; the family's unit and direction
  std::int64_t num_labels = 0;  // labels that the search kept, the measure of its work
  // For people, who import a problem of their own:
  std::string unit = {};                                // of the score: "samples per second"
  double step_seconds = 0;                              // predicted by the peer's formulas
  std::optional<double> lower_bound_step_seconds = {};  // no plan of the searched space takes less
  std::vector<std::string> notes = {};                  // sentences: what was assumed
  /// A step trains on more samples than the global batch, since replicas x micro-batch do not divide it.
  bool rounds_batch_up = false;
};

/// Solves an instance that is in memory already.
using ContestSolver = std::function<Result<ContestAnswer>(const ContestOptions&)>;

/// `load` reads an instance and the files it names, relative to `file`; where the planner has a file form of its own
/// that the family knows, that too. Errors: InvalidArgument, every problem listed.
struct ContestFamily {
  std::string name;  // the folder's name in a contest directory
  Result<ContestSolver> (*load)(const Json& instance, const std::filesystem::path& file);
};
/// In the order of their names.
[[nodiscard]] const std::vector<ContestFamily>& contest_families();

}  // namespace coxswain::planner
