// How far the cost model is from published training runs: `cost_accuracy DIR` predicts every row of a score set of
// DIR/lm_throughput.csv (format: docs/cost_model.md, "Accuracy") and prints the mean and worst error of each group and
// of all. Each group is predicted with constants that were fitted without it, and once more without all rows of its
// machine (several software versions, models of one source on one device). A row that cannot be predicted is named.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <set>

#include "bench/support/bench.h"
#include "bench/support/measured.h"
#include "common/clock.h"

using namespace coxswain;
using namespace coxswain::bench;
using cost_model::Efficiency;
using cost_model::MeasuredRecipe;

namespace {

constexpr double kGoal = 0.20;  // mean over groups of the mean absolute error
/// The built-in constants are known better than their priors: a table of few groups moves them half as far.
constexpr double kFittedSigmaScale = 0.5;

struct Errors {
  double mean = 0, worst = 0, bias = 0;  // absolute relative errors; bias: mean of the signed logarithm
  std::size_t rows = 0;
};

using Predictions = std::vector<double>;  // seconds by row
using Chosen = std::function<bool(const MeasuredRow&)>;

class Accuracy {
 public:
  Accuracy(MeasuredTables tables, bool quick) : tables_(std::move(tables)), iterations_(quick ? 4 : 12) {
    std::map<std::string, double> sizes;
    for (const MeasuredRow& row : tables_.rows) sizes[row.group] += 1;
    // Every group speaks as loud as any other, however many rows it has.
    for (MeasuredRow& row : tables_.rows) row.measured.weight = 1 / sizes[row.group];
    for (const auto& [group, size] : sizes) groups_.push_back(group);
  }

  [[nodiscard]] const std::vector<std::string>& groups() const { return groups_; }
  [[nodiscard]] const MeasuredTables& tables() const { return tables_; }

  Efficiency fit_all() const {
    return fit([](const MeasuredRow&) { return true; }, {});
  }

  Predictions predict(const Efficiency& efficiency) const {
    Predictions result;
    for (const MeasuredRow& row : tables_.rows) result.push_back(seconds(row, efficiency));
    return result;
  }

  /// Each row with constants that were fitted on the rows of the other folds.
  Predictions predict_left_out(const std::function<std::string(const MeasuredRow&)>& fold_of) const {
    std::map<std::string, std::set<std::string>> folds;  // and their groups
    for (const MeasuredRow& row : tables_.rows) folds[fold_of(row)].insert(row.group);
    Predictions result(tables_.rows.size());
    for (const auto& [fold, groups] : folds) {
      const Efficiency efficiency = fit([&](const MeasuredRow& row) { return fold_of(row) != fold; }, groups);
      for (std::size_t i = 0; i < tables_.rows.size(); ++i)
        if (fold_of(tables_.rows[i]) == fold) result[i] = seconds(tables_.rows[i], efficiency);
    }
    return result;
  }

  [[nodiscard]] Errors errors(const Predictions& predictions, const Chosen& chosen) const {
    Errors errors;
    for (std::size_t i = 0; i < tables_.rows.size(); ++i) {
      if (!chosen(tables_.rows[i])) continue;
      const double ratio = predictions[i] / tables_.rows[i].measured.step.value;
      const double error = std::abs(ratio - 1);
      errors.mean += error;
      errors.bias += std::log(ratio);
      errors.worst = std::max(errors.worst, error);
      ++errors.rows;
    }
    if (errors.rows > 0) {
      errors.mean /= static_cast<double>(errors.rows);
      errors.bias /= static_cast<double>(errors.rows);
    }
    return errors;
  }
  [[nodiscard]] Errors group_errors(const Predictions& predictions, const std::string& group) const {
    return errors(predictions, [&](const MeasuredRow& row) { return row.group == group; });
  }
  /// Mean over the groups that have such rows, of their means; the worst of all.
  [[nodiscard]] Errors over_groups(const Predictions& predictions, const Chosen& chosen) const {
    Errors result;
    std::size_t count = 0;
    for (const std::string& group : groups_) {
      const Errors one = errors(predictions, [&](const MeasuredRow& row) { return row.group == group && chosen(row); });
      if (one.rows == 0) continue;
      result.mean += one.mean;
      result.bias += one.bias;
      result.worst = std::max(result.worst, one.worst);
      result.rows += one.rows;
      ++count;
    }
    if (count > 0) {
      result.mean /= static_cast<double>(count);
      result.bias /= static_cast<double>(count);
    }
    return result;
  }

 private:
  static double seconds(const MeasuredRow& row, const Efficiency& efficiency) {
    const MeasuredRecipe& measured = row.measured;
    const auto time = cost_model::estimate_recipe(measured.shape, measured.recipe, measured.machine, efficiency);
    return time ? time->step.value : 0;
  }

  /// Centred on the library's constants unless they have seen one of `left_out`.
  Efficiency fit(const Chosen& chosen, const std::set<std::string>& left_out) const {
    const auto seen = cost_model::fitted_groups();
    const bool fresh = !left_out.empty() && std::none_of(seen.begin(), seen.end(),
                                                         [&](const char* group) { return left_out.contains(group); });
    std::vector<MeasuredRecipe> rows;
    for (const MeasuredRow& row : tables_.rows)
      if (chosen(row)) rows.push_back(row.measured);
    if (!fresh) return cost_model::fit_efficiency(rows, cost_model::prior_efficiency(), iterations_);
    return cost_model::fit_efficiency(rows, cost_model::default_efficiency(), iterations_, kFittedSigmaScale);
  }

  MeasuredTables tables_;
  std::vector<std::string> groups_;
  int iterations_;
};

Json to_json(const Errors& errors) {
  return JsonObject{{"mean_error_fraction", errors.mean},
                    {"worst_error_fraction", errors.worst},
                    {"mean_log_ratio", errors.bias},
                    {"rows", static_cast<std::int64_t>(errors.rows)}};
}

void print_constants(const Efficiency& fitted) {
  std::printf("  constants fitted on all rows (prior):\n");
  for (const cost_model::EfficiencyTerm& term : cost_model::efficiency_terms())
    std::printf("    %-20s %10.4g (%.4g)\n", term.name, fitted.*(term.value), term.prior);
}

struct Method {
  const char* name;
  Predictions predictions;
};

void print_groups(const Accuracy& accuracy, const std::vector<Method>& methods, Json& json) {
  std::printf("  %-40s %5s", "group: mean (worst) of |error|, %", "rows");
  for (const Method& method : methods) std::printf("  %16s", method.name);
  std::printf("\n");
  for (const std::string& group : accuracy.groups()) {
    JsonObject entry;
    for (const Method& method : methods) {
      const Errors errors = accuracy.group_errors(method.predictions, group);
      if (&method == &methods.front()) std::printf("  %-40s %5zu", group.c_str(), errors.rows);
      std::printf("    %5.1f (%6.1f)", 100 * errors.mean, 100 * errors.worst);
      entry[method.name] = to_json(errors);
    }
    std::printf("\n");
    json["groups"][group] = entry;
  }
}

void print_classes(const Accuracy& accuracy, const std::vector<Method>& methods, Json& json) {
  const std::vector<std::pair<const char*, Chosen>> classes{
      {"all groups", [](const MeasuredRow&) { return true; }},
      {"dense, 16 bits, not fully sharded",
       [](const MeasuredRow& row) { return !row.experts && !row.narrow && !row.sharded; }},
      {"8 and 4 bits", [](const MeasuredRow& row) { return row.narrow; }},
      {"experts", [](const MeasuredRow& row) { return row.experts; }},
      {"fully sharded (ZeRO 3, FSDP)", [](const MeasuredRow& row) { return row.sharded; }}};
  for (const auto& [name, chosen] : classes) {
    std::printf("  %-40s", name);
    JsonObject entry;
    for (const Method& method : methods) {
      const Errors errors = accuracy.over_groups(method.predictions, chosen);
      if (&method == &methods.front()) std::printf(" %5zu", errors.rows);
      std::printf("    %5.1f (%6.1f)", 100 * errors.mean, 100 * errors.worst);
      entry[method.name] = to_json(errors);
    }
    std::printf("\n");
    json["classes"][name] = entry;
  }
}

void print_unpredicted(const Accuracy& accuracy, Json& json) {
  const auto& rows = accuracy.tables().unpredicted;
  std::printf("  %zu rows predicted, %zu not\n", accuracy.tables().rows.size(), rows.size());
  JsonArray list;
  for (const UnpredictedRow& row : rows) {
    std::printf("    not predicted: %s (%s): %s\n", row.id.c_str(), row.group.c_str(), row.reason.c_str());
    list.push_back(JsonObject{{"id", row.id}, {"group", row.group}, {"reason", row.reason}});
  }
  json["predicted"] = static_cast<std::int64_t>(accuracy.tables().rows.size());
  json["not_predicted"] = list;
}

Json rows_json(const Accuracy& accuracy, const std::vector<Method>& methods) {
  JsonArray rows;
  for (std::size_t i = 0; i < accuracy.tables().rows.size(); ++i) {
    const MeasuredRow& row = accuracy.tables().rows[i];
    JsonObject entry{{"id", row.id}, {"group", row.group}, {"measured_seconds", row.measured.step.value}};
    for (const Method& method : methods) entry[method.name] = method.predictions[i];
    rows.push_back(entry);
  }
  return rows;
}

int run(const std::filesystem::path& folder, const Options& options) {
  const std::string set = options.other.contains("--set") ? options.other.at("--set") : "core";
  auto tables = read_measured_folder(folder, set);
  if (!tables) {
    std::cerr << to_text(tables.error()) << "usage: cost_accuracy DIR [--set core|extended|stress|all]\n";
    return 64;
  }
  const TimePoint begin = steady_clock().now();
  const Accuracy accuracy(std::move(*tables), options.quick);
  Report report("cost_accuracy", options);
  const Efficiency all = accuracy.fit_all();
  std::vector<Method> methods;
  methods.push_back({"others' groups", accuracy.predict_left_out([](const MeasuredRow& row) { return row.group; })});
  methods.push_back(
      {"others' machines", accuracy.predict_left_out([](const MeasuredRow& row) { return row.machine; })});
  methods.push_back({"all (in-sample)", accuracy.predict(all)});
  methods.push_back({"built in", accuracy.predict(cost_model::default_efficiency())});
  print_groups(accuracy, methods, report.extra());
  print_classes(accuracy, methods, report.extra());
  report.extra()["rows"] = rows_json(accuracy, methods);
  print_constants(all);
  print_unpredicted(accuracy, report.extra());
  for (const cost_model::EfficiencyTerm& term : cost_model::efficiency_terms())
    report.extra()["constants"][term.name] = all.*(term.value);
  std::printf("  %.1f s\n", std::chrono::duration<double>(steady_clock().now() - begin).count());
  const auto check = [&](const char* name, const Predictions& predictions) {
    const Errors errors = accuracy.over_groups(predictions, [](const MeasuredRow&) { return true; });
    report.add({name, errors.mean, kGoal, errors.mean / kGoal, "fraction", "<= 0.20",
                errors.rows > 0 && errors.mean <= kGoal});
  };
  check("mean error over groups, each left out", methods[0].predictions);
  check("mean error over groups, each machine left out", methods[1].predictions);
  return report.finish();
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<char*> rest{argv[0]};
  std::filesystem::path folder;
  for (int i = 1; i < argc; ++i) {
    if (i == 1 && argv[i][0] != '-')
      folder = argv[i];
    else
      rest.push_back(argv[i]);
  }
  const Options options = parse_options(static_cast<int>(rest.size()), rest.data(),
                                        "published training runs beside predictions: cost_accuracy DIR", {"--set"});
  return run(folder, options);
}
