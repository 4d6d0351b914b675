// Predicted beside measured, step time and peak memory of every replica, for random valid plans (issue 5, rows b and
// c): the five families of tests/model/make_models.py, wide enough that an action that holds a layer takes 50 ms or
// longer on its share of a core: of each family the first ones that have. Real processes; families follow each other,
// and so do precisions within a family, under measurements of the machine that are taken when the family begins: a
// shared machine is another one half an hour later. It is another one some minutes later too, so a fixed piece of work
// is timed around each measurement and each run: steps are compared as they are, and at one pace of the machine. In
// several rounds all is done again, measurements of the machine too, as much later as a round takes; what is compared
// of a plan is the mean of its predictions with the mean of its runs, and its worst memory.
//   plan_accuracy [MODEL.pt2 ...] --plans N [--seed S] [--first K] [--ranks-max R] [--steps N] [--min-action S]
//                 [--rounds N] [--share CORES] [--measured FOLDER] [--only FAMILY] [--earlier FILE.json]
//                 [--again FILE.json]
// A share of each device: of 8 on two cores 0.2. What is left over pays for the launcher, the kernel and what a shared
// host takes, so that a device has its share whatever the others do; without it devices share out all cores, and each
// is as fast as the others are idle. With a folder measurements stay there, and those of an earlier run are taken as
// they are. In parts: one family of all that are named, and the rows that other parts left in a file of --json. --again
// runs nothing: today's predictions, from the measurements in the folder, beside the steps that a file of --json holds.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>

#include "bench/support/launched_plans.h"
#include "bench/support/machine_pace.h"
#include "bench/support/random_plans.h"
#include "common/bytes_io.h"
#include "common/ensure.h"
#include "cost_model/cost_model.h"
#include "model/load.h"
#include "plan/program.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr const char* kWidth = "256";
constexpr const char* kLength = "128";
constexpr int kFirstMeasuredStep = 3;
constexpr double kRunLimitSeconds = 900;

struct Row {
  double predicted_step = 0, measured_step = 0;
  double pace = 1;          // the machine's seconds for a piece of work, by those when it was measured
  double memory_error = 0;  // of the worst replica
};

/// Of one plan in all rounds.
Row mean_of(const std::vector<Row>& rounds) {
  Row mean;
  double at_pace = 0;
  for (const Row& row : rounds) {
    mean.predicted_step += row.predicted_step / static_cast<double>(rounds.size());
    mean.measured_step += row.measured_step / static_cast<double>(rounds.size());
    at_pace += row.measured_step / row.pace / static_cast<double>(rounds.size());
    mean.memory_error = std::max(mean.memory_error, row.memory_error);
  }
  mean.pace = mean.measured_step / at_pace;
  return mean;
}

class Subject {
 public:
  Subject(std::filesystem::path file, std::string devices, int steps, std::filesystem::path measured)
      : file_(std::move(file)),
        graph_(load(file_)),
        devices_(std::move(devices)),
        steps_(steps),
        measured_(std::move(measured)) {}

  [[nodiscard]] std::string name() const { return file_.stem().string(); }
  [[nodiscard]] const model::ModelGraph& graph() const { return graph_; }

  const LaunchedPlans& launched(plan::Precision precision) {
    auto& one = launched_[precision];
    if (!one) {
      const auto folder =
          measured_.empty() ? measured_ : measured_ / (name() + "-" + std::string(plan::to_text(precision)) + round_);
      const auto measure = [&] { one = std::make_unique<LaunchedPlans>(job(precision), devices_, folder); };
      pace_[precision] = pace_of(folder, measure);
    }
    return *one;
  }

  /// What is launched after this has measurements of its own, in another folder.
  void measure_anew(int round) {
    launched_.clear();
    if (!measured_.empty()) round_ = "-" + std::to_string(round);
  }

  /// The shortest forward of a stage that holds a whole layer, as it is predicted.
  Seconds shortest_action(const plan::Plan& plan) {
    const LaunchedPlans& launched = this->launched(plan.precision);
    const auto cost = cost_model::make_cost_model(graph_, launched.cluster(), &launched.profile());
    const auto simulation = cost_model::simulate(*cost, plan);
    if (!simulation) return Seconds(0);
    double shortest = HUGE_VAL;
    for (const auto& one : simulation->actions) {
      const plan::Action& action = plan.roles[one.role].actions[one.action];
      const int last_layer = graph_.num_blocks() - 1;
      if (action.kind != plan::ActionKind::Forward ||
          std::max(action.first_block, 1) >= std::min(action.end_block, last_layer))
        continue;
      shortest = std::min(shortest, one.end - one.start);
    }
    return Seconds(shortest);
  }

  Seconds predict(const plan::Plan& plan) {
    const LaunchedPlans& launched = this->launched(plan.precision);
    const auto cost = cost_model::make_cost_model(graph_, launched.cluster(), &launched.profile());
    return or_end(cost_model::simulate(*cost, plan)).estimate.step;
  }

  TrainRun run(const plan::Plan& plan) {
    return launched(plan.precision).run(job(plan.precision), plan, {}, kRunLimitSeconds);
  }

  /// The machine's pace when it was measured for this precision.
  [[nodiscard]] double pace(plan::Precision precision) const { return pace_.at(precision); }

  static constexpr int kGlobalBatch = 24;

 private:
  /// The machine's pace around `measure`, kept beside what it measured; where that was kept, so is its pace.
  static double pace_of(const std::filesystem::path& folder, const std::function<void()>& measure) {
    const std::string kept = (folder / "pace.json").string();
    if (!folder.empty() && std::filesystem::exists(kept)) {
      measure();
      return or_end(parse_json(or_end(read_file(kept))))["seconds"].number();
    }
    const double before = machine_pace();
    measure();
    const double pace = (before + machine_pace()) / 2;
    if (!folder.empty()) or_end(write_file(kept, to_text(Json(JsonObject{{"seconds", pace}}), 2) + "\n"));
    return pace;
  }

  static model::ModelGraph load(const std::filesystem::path& file) {
    auto graph = model::load_pt2(file);
    if (!graph) {
      std::fputs(to_text(graph.error()).c_str(), stderr);
      std::exit(1);
    }
    return std::move(*graph);
  }

  [[nodiscard]] TrainJob job(plan::Precision precision) const {
    TrainJob job;
    job.model = file_;
    job.tensors = file_;
    job.tensors.replace_extension(".safetensors");
    job.global_batch = kGlobalBatch;
    job.steps = steps_;
    job.precision = plan::to_text(precision);
    job.first_measured_step = kFirstMeasuredStep;
    return job;
  }

  std::filesystem::path file_;
  model::ModelGraph graph_;
  std::string devices_;
  int steps_;
  std::filesystem::path measured_;
  std::string round_;  // part of a folder's name
  std::map<plan::Precision, std::unique_ptr<LaunchedPlans>> launched_;
  std::map<plan::Precision, double> pace_;
};

/// A plan by its number: drawn again, it is the same, on whatever cluster of such devices.
struct Chosen {
  int number = 0;
  Subject* subject = nullptr;
  plan::Precision precision = plan::Precision::Float32;
};

plan::Plan draw(const Chosen& chosen, const cluster::ResourceGraph& cluster, std::uint64_t seed, int max_ranks) {
  RandomPlanOptions drawing;
  drawing.seed = seed;
  drawing.max_ranks = max_ranks;
  drawing.global_batch = Subject::kGlobalBatch;
  return draw_plan(chosen.subject->graph(), cluster, drawing, static_cast<std::uint64_t>(chosen.number));
}

/// The first `count` plans of the family that are long enough, those of one precision together.
std::vector<Chosen> choose(Subject& subject, std::size_t index, std::size_t num_subjects, std::size_t count, int first,
                           double min_action, std::uint64_t seed, int max_ranks) {
  std::vector<Chosen> chosen;
  auto i = static_cast<std::size_t>(first);
  for (i += (index + num_subjects - i % num_subjects) % num_subjects; chosen.size() < count; i += num_subjects) {
    Chosen one{static_cast<int>(i), &subject};
    const plan::Plan plan = draw(one, subject.launched(plan::Precision::Float32).cluster(), seed, max_ranks);
    if (subject.shortest_action(plan).value < min_action) continue;
    one.precision = plan.precision;
    chosen.push_back(one);
  }
  std::stable_sort(chosen.begin(), chosen.end(),
                   [](const Chosen& a, const Chosen& b) { return a.precision < b.precision; });
  return chosen;
}

/// The plans of an earlier run with what they took then, as they are predicted now.
std::vector<Row> predict_again(const std::string& file, const std::vector<std::unique_ptr<Subject>>& subjects,
                               std::uint64_t seed, int max_ranks) {
  std::vector<Row> rows;
  const Json earlier = or_end(parse_json(or_end(read_file(file))));
  for (const Json& row : earlier["extra"]["plans"].array()) {
    Chosen one{static_cast<int>(row["plan"].integer())};
    for (const auto& subject : subjects)
      if (subject->name() == row["model"].string()) one.subject = subject.get();
    COX_ENSURE(one.subject != nullptr, row["model"].string());
    const plan::Plan plan = draw(one, one.subject->launched(one.precision).cluster(), seed, max_ranks);
    const double now = one.subject->predict(plan).value, measured = row["measured_seconds"].number();
    rows.push_back({now, measured, row["pace"].number(), row["memory_error"].number()});
    std::printf(
        "plan %d, %s: %s  step predicted %.0f ms (%.0f before), measured %.0f ms (%+.1f %%; at one pace %+.1f %%)\n",
        one.number, one.subject->name().c_str(), describe(plan).c_str(), now * 1e3,
        row["predicted_seconds"].number() * 1e3, measured * 1e3, 100 * (now / measured - 1),
        100 * (now * row["pace"].number() / measured - 1));
  }
  return rows;
}

/// `of_all_cores`: devices share out all cores, so that the machine's pace is theirs.
void report_rows(const std::vector<Row>& rows, bool of_all_cores, Report& report) {
  std::vector<double> memory, step, step_at_pace, predicted, measured, measured_at_pace, paces;
  for (const Row& row : rows) {
    memory.push_back(row.memory_error);
    predicted.push_back(row.predicted_step);
    measured.push_back(row.measured_step);
    measured_at_pace.push_back(row.measured_step / row.pace);
    step.push_back(std::fabs(predicted.back() / measured.back() - 1));
    step_at_pace.push_back(std::fabs(predicted.back() / measured_at_pace.back() - 1));
    paces.push_back(std::fabs(row.pace - 1));
  }
  std::printf("the machine's pace moved by %.1f %% (median), %.1f %% (worst) from measurement to run\n",
              100 * median(paces), 100 * *std::max_element(paces.begin(), paces.end()));
  const auto add = [&](const char* what, double ours, double goal, const char* text, bool pass) {
    report.add({what, ours, goal, ours / goal, "fraction", text, pass});
  };
  const double worst = *std::max_element(memory.begin(), memory.end());
  const double order = spearman(predicted, measured), order_at_pace = spearman(predicted, measured_at_pace);
  add("peak memory, median error of a plan's worst replica", median(memory), 0.08, "<= 0.08", median(memory) <= 0.08);
  add("peak memory, worst error", worst, 0.20, "<= 0.20", worst <= 0.20);
  add("step time, median error", median(step), 0.10, "<= 0.10", median(step) <= 0.10);
  add("step time, Spearman", order, 0.95, ">= 0.95", order >= 0.95);
  if (!of_all_cores) return;
  add("step time at one pace, median error", median(step_at_pace), 0.10, "<= 0.10", median(step_at_pace) <= 0.10);
  add("step time at one pace, Spearman", order_at_pace, 0.95, ">= 0.95", order_at_pace >= 0.95);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> models;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    if (i > 0 && std::string_view(argv[i]).ends_with(".pt2"))
      models.emplace_back(std::filesystem::absolute(argv[i]));
    else
      rest.push_back(argv[i]);
  }
  const Options options =
      parse_options(static_cast<int>(rest.size()), rest.data(), "predicted beside measured for random valid plans",
                    {"--plans", "--first", "--ranks-max", "--steps", "--min-action", "--rounds", "--share",
                     "--measured", "--only", "--again", "--earlier"});
  const auto number = [&](const char* name, double otherwise) {
    return options.other.contains(name) ? std::stod(options.other.at(name)) : otherwise;
  };
  if (models.empty()) models = make_family_models({kWidth, kLength});
  const int max_ranks = static_cast<int>(number("--ranks-max", 8)), first = static_cast<int>(number("--first", 0));
  const auto wanted = static_cast<std::size_t>(number("--plans", options.quick ? 5 : 40));
  std::string devices = std::to_string(max_ranks) + "xcpu";
  const bool of_all_cores = !options.other.contains("--share");
  if (!of_all_cores) devices += "@" + options.other.at("--share");
  std::vector<std::unique_ptr<Subject>> subjects;
  const std::filesystem::path measured = options.other.contains("--measured")
                                             ? std::filesystem::path(options.other.at("--measured"))
                                             : std::filesystem::path();
  for (const auto& model : models)
    subjects.push_back(std::make_unique<Subject>(model, devices, static_cast<int>(number("--steps", 7)), measured));
  Report report("plan_accuracy", options);
  if (options.other.contains("--again")) {
    report_rows(predict_again(options.other.at("--again"), subjects, options.seed, max_ranks), of_all_cores, report);
    return report.finish();
  }
  std::vector<Row> rows;
  JsonArray json;
  if (options.other.contains("--earlier")) {
    const Json earlier = or_end(parse_json(or_end(read_file(options.other.at("--earlier")))));
    for (const Json& plan : earlier["extra"]["plans"].array()) {
      rows.push_back({plan["predicted_seconds"].number(), plan["measured_seconds"].number(), plan["pace"].number(),
                      plan["memory_error"].number()});
      json.push_back(plan);
    }
    std::printf("%zu plans of earlier parts\n", rows.size());
  }
  const auto run_one = [&](const Chosen& one) {
    Subject& subject = *one.subject;
    const int i = one.number;
    const plan::Plan plan = draw(one, subject.launched(one.precision).cluster(), options.seed, max_ranks);
    std::printf("plan %d, seed %llu, %s: %s", i, static_cast<unsigned long long>(options.seed), subject.name().c_str(),
                describe(plan).c_str());
    std::fflush(stdout);
    double pace = machine_pace();
    const TrainRun run = subject.run(plan);
    pace = (pace + machine_pace()) / 2 / subject.pace(one.precision);
    if (!run.ok) {
      std::printf("  FAILED\n%s\n", run.failure.c_str());
      std::exit(1);
    }
    Row row{run.predicted_step, run.measured_step, pace, 0};
    std::vector<double> memory_errors;  // by replica
    for (const ReplicaRanks& of : replica_ranks(plan)) {
      double fullest = 0;
      for (const int rank : of.ranks) fullest = std::max(fullest, run.measured_peak.at(static_cast<std::size_t>(rank)));
      memory_errors.push_back(run.predicted_peak.at(static_cast<std::size_t>(of.ranks.front())) / fullest - 1);
      row.memory_error = std::max(row.memory_error, std::fabs(memory_errors.back()));
    }
    std::printf("  step predicted %.0f ms, measured %.0f ms (%+.1f %%; at one pace %+.1f %%); memory",
                row.predicted_step * 1e3, row.measured_step * 1e3, 100 * (row.predicted_step / row.measured_step - 1),
                100 * (row.predicted_step * pace / row.measured_step - 1));
    for (const double error : memory_errors) std::printf(" %+.1f", 100 * error);
    std::printf(" %%\n");
    std::fflush(stdout);
    return row;
  };
  struct Family {
    std::size_t subject = 0, count = 0;
    std::vector<Chosen> plans;
    std::vector<std::vector<Row>> rows;  // by plan, then round
  };
  std::vector<Family> families;
  for (std::size_t s = 0; s < subjects.size(); ++s) {
    // As many of each family; those from plan `first` on have one more where it is uneven.
    const std::size_t turn =
        (s + subjects.size() - static_cast<std::size_t>(first) % subjects.size()) % subjects.size();
    const std::size_t count = wanted / subjects.size() + (turn < wanted % subjects.size() ? 1 : 0);
    const auto only = options.other.find("--only");
    if (count == 0 || (only != options.other.end() && only->second != subjects[s]->name())) continue;
    families.push_back({s, count, {}, {}});
  }
  const int num_rounds = std::max(1, static_cast<int>(number("--rounds", 1)));
  for (int round = 1; round <= num_rounds; ++round) {
    if (num_rounds > 1) std::printf("round %d\n", round);
    for (Family& family : families) {
      Subject& subject = *subjects[family.subject];
      if (round > 1) subject.measure_anew(round);
      if (round == 1) {
        family.plans = choose(subject, family.subject, subjects.size(), family.count, first,
                              number("--min-action", 0.05), options.seed, max_ranks);
        family.rows.resize(family.plans.size());
      }
      for (std::size_t i = 0; i < family.plans.size(); ++i) family.rows[i].push_back(run_one(family.plans[i]));
    }
  }
  for (const Family& family : families) {
    for (std::size_t i = 0; i < family.plans.size(); ++i) {
      const Row row = mean_of(family.rows[i]);
      const Chosen& one = family.plans[i];
      json.push_back(JsonObject{{"plan", one.number},
                                {"model", one.subject->name()},
                                {"predicted_seconds", row.predicted_step},
                                {"measured_seconds", row.measured_step},
                                {"pace", row.pace},
                                {"memory_error", row.memory_error}});
      rows.push_back(row);
    }
  }
  report.extra()["plans"] = json;
  report_rows(rows, of_all_cores, report);
  return report.finish();
}
