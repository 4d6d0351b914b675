#include "planner/problems/amp.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <string>

#include "planner/problems/amp_model.h"
#include "planner/problems/amp_split.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxGpus = 1024, kMaxUnits = 256, kMaxBatch = 1 << 20;

double positive(JsonReader& reader, const std::string& key) {
  const double value = reader.number(key);
  if (reader.has(key) && !(value > 0))
    reader.problem({ErrorCode::InvalidArgument, "wrong value", key, "a number above 0", to_text(reader.any(key)), ""});
  return value;
}

double not_negative(JsonReader& reader, const std::string& key) {
  const double value = reader.number(key);
  if (!(value >= 0))
    reader.problem({ErrorCode::InvalidArgument, "wrong value", key, "a number from 0", to_text(reader.any(key)), ""});
  return value;
}

void append(std::vector<Error>& problems, std::vector<Error> more) {
  problems.insert(problems.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

std::vector<AmpNode> read_nodes(const JsonArray& array, std::vector<Error>& problems) {
  std::vector<AmpNode> nodes;
  for (std::size_t i = 0; i < array.size(); ++i) {
    JsonReader reader(array[i], "nodes[" + std::to_string(i) + "]");
    AmpNode node;
    node.gpus = static_cast<int>(reader.integer("gpus", 1, kMaxGpus));
    node.inter_numbers_per_second = positive(reader, "inter_numbers_per_s");
    node.intra_numbers_per_second = positive(reader, "intra_numbers_per_s");
    append(problems, reader.take_problems());
    nodes.push_back(node);
  }
  return nodes;
}

std::vector<AmpUnit> read_units(const JsonArray& array, std::vector<Error>& problems) {
  std::vector<AmpUnit> units;
  for (std::size_t i = 0; i < array.size(); ++i) {
    JsonReader reader(array[i], "units[" + std::to_string(i) + "]");
    AmpUnit unit;
    reader.any("name");
    unit.parameters = not_negative(reader, "parameters");
    unit.embedding = reader.boolean("embedding");
    unit.output_numbers_per_sample = not_negative(reader, "output_numbers_per_sample");
    unit.output_divided_by_tp = reader.boolean("output_divided_by_tp");
    append(problems, reader.take_problems());
    units.push_back(unit);
  }
  return units;
}

Error wrong(const std::string& path, const std::string& expected, const std::string& got) {
  return {ErrorCode::InvalidArgument, "wrong value", path, expected, got, ""};
}

std::map<int, std::vector<double>> read_forward(const Json& json, std::size_t num_units, std::vector<Error>& problems) {
  std::map<int, std::vector<double>> forward;
  for (const auto& [key, values] : json.object()) {
    const std::string path = "forward_seconds_per_sample." + key;
    int tp = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), tp);
    if (error != std::errc{} || end != key.data() + key.size() || tp < 1 || tp > kMaxGpus) {
      problems.push_back(wrong(path, "a tensor-parallel degree as key", key));
      continue;
    }
    if (!values.is_array() || values.array().size() != num_units) {
      const std::string got = values.is_array() ? std::to_string(values.array().size()) + " values" : "no array";
      problems.push_back(wrong(path, "one value per unit (" + std::to_string(num_units) + ")", got));
      continue;
    }
    for (std::size_t i = 0; i < num_units; ++i) {
      const Json& value = values.array()[i];
      const bool good = value.is_number() && value.number() >= 0;
      if (!good) problems.push_back(wrong(path + "[" + std::to_string(i) + "]", "a number from 0", to_text(value)));
      forward[tp].push_back(good ? value.number() : 0);
    }
  }
  return forward;
}

std::vector<std::int64_t> divisors(std::int64_t number) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 1; i <= number; ++i)
    if (number % i == 0) result.push_back(i);
  return result;
}

struct Ranked {
  AmpPlan plan;
  double seconds = 0;
  bool fits = true;
};

/// The best cut; where none fits the memory, the best one regardless, marked.
Ranked best_cut(const AmpShape& shape, AmpSplitCosts costs, std::int64_t& num_labels) {
  auto found = find_amp_split(costs);
  const bool fits = found.has_value();
  if (!fits) {
    costs.unit_activation.clear();
    found = find_amp_split(costs);
  }
  num_labels += found->num_labels;
  return {{shape, std::move(found->split)}, found->seconds, fits};
}

Json to_json(const AmpPlan& plan) {
  JsonArray split;
  for (const int units : plan.split) split.emplace_back(units);
  return JsonObject{{"tp", plan.shape.tp},
                    {"dp", plan.shape.dp},
                    {"pp", plan.shape.pp},
                    {"microbatch", plan.shape.micro_batch},
                    {"split", std::move(split)}};
}

}  // namespace

int num_gpus(const AmpInstance& instance) {
  int sum = 0;
  for (const AmpNode& node : instance.nodes) sum += node.gpus;
  return sum;
}

Result<AmpInstance> parse_amp(const Json& json, const std::filesystem::path& file) {
  JsonReader reader(json, file.filename().string());
  AmpInstance instance;
  std::vector<Error> problems;
  // Members that describe the instance, or that no planner may read.
  if (json.is_object())
    for (const auto& [key, value] : json.object()) reader.any(key);
  instance.global_batch = reader.integer("global_batch", 1, kMaxBatch);
  instance.nodes = read_nodes(reader.array("nodes"), problems);
  instance.units = read_units(reader.array("units"), problems);
  instance.forward_seconds = read_forward(reader.object("forward_seconds_per_sample"), instance.units.size(), problems);
  if (reader.has("nodes") && (instance.nodes.empty() || num_gpus(instance) > kMaxGpus))
    problems.push_back(
        wrong("nodes", "1 to " + std::to_string(kMaxGpus) + " GPUs", std::to_string(num_gpus(instance))));
  if (reader.has("units") && (instance.units.empty() || instance.units.size() > kMaxUnits))
    problems.push_back(
        wrong("units", "1 to " + std::to_string(kMaxUnits) + " units", std::to_string(instance.units.size())));
  for (Error& problem : problems) reader.problem(std::move(problem));
  COX_TRY_VOID(reader.finish());
  return instance;
}

std::vector<AmpShape> list_shapes(const AmpInstance& instance) {
  std::vector<AmpShape> shapes;
  const int gpus = num_gpus(instance);
  for (const auto& [tp, profile] : instance.forward_seconds) {
    if (gpus % tp != 0) continue;
    for (const std::int64_t dp : divisors(gpus / tp)) {
      const std::int64_t pp = gpus / tp / dp;
      if (instance.global_batch % dp != 0 || pp > static_cast<std::int64_t>(instance.units.size())) continue;
      for (const std::int64_t micro_batch : divisors(instance.global_batch / dp))
        shapes.push_back({tp, static_cast<int>(dp), static_cast<int>(pp), micro_batch});
    }
  }
  return shapes;
}

double estimate_amp_seconds(const AmpInstance& instance, const AmpPlan& plan) {
  const AmpSplitCosts costs = peer_split_costs(instance, plan.shape);
  double slowest = 0, sum = 0, cuts = 0, sync = 0;
  std::size_t unit = 0;
  for (std::size_t stage = 0; stage < plan.split.size(); ++stage) {
    double seconds = 0, parameters = 0, embedding = 0;
    const std::size_t end = unit + static_cast<std::size_t>(plan.split[stage]);
    for (; unit < end; ++unit) {
      seconds += costs.unit_seconds[unit];
      if (costs.unit_embedding[unit]) {
        embedding = std::max(embedding, costs.unit_parameters[unit]);
      } else {
        parameters += costs.unit_parameters[unit];
      }
    }
    slowest = std::max(slowest, seconds);
    sum += seconds;
    cuts += costs.unit_output[end - 1] * costs.cut_seconds_per_number[stage];
    sync = std::max(sync, (parameters + embedding) * costs.sync_seconds_per_parameter[stage]);
  }
  return static_cast<double>(costs.rounds) * slowest + sum + cuts + sync;
}

Result<ContestAnswer> solve_amp(const AmpInstance& instance, const ContestOptions& options) {
  std::vector<Ranked> ranking;
  ContestAnswer result;
  for (const AmpShape& shape : list_shapes(instance)) {
    AmpSplitCosts costs =
        options.own_cost_model ? model_split_costs(instance, shape) : peer_split_costs(instance, shape);
    ranking.push_back(best_cut(shape, std::move(costs), result.num_labels));
  }
  if (ranking.empty()) {
    return Error{ErrorCode::ResourceExhausted,
                 "no valid plan",
                 "forward_seconds_per_sample",
                 "a tensor-parallel degree that divides " + std::to_string(num_gpus(instance)) + " GPUs",
                 "none",
                 ""};
  }
  std::stable_sort(ranking.begin(), ranking.end(),
                   [](const Ranked& a, const Ranked& b) { return a.fits != b.fits ? a.fits : a.seconds < b.seconds; });
  JsonArray plans;
  for (const Ranked& ranked : ranking) plans.push_back(to_json(ranked.plan));
  const Ranked& first = ranking.front();
  result.score = options.own_cost_model ? first.seconds : estimate_amp_seconds(instance, first.plan);
  result.answer = JsonObject{{"plans", std::move(plans)}};
  return result;
}

Result<ContestSolver> load_amp(const Json& json, const std::filesystem::path& file) {
  COX_TRY(AmpInstance instance, parse_amp(json, file));
  auto shared = std::make_shared<const AmpInstance>(std::move(instance));
  return ContestSolver([shared](const ContestOptions& options) { return solve_amp(*shared, options); });
}

}  // namespace coxswain::planner
