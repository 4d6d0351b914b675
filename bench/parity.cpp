// Random valid plans against one rank with the same micro-batches: same losses, same norms of gradients (issue 5, row
// a). Ranks are threads of this process over the `host` backend; the last `--mpi K` plans run as processes over MPI, by
// `launch train`.
//   parity [MODEL.pt2 ...] --plans N [--seed S] [--first K] [--ranks-max R] [--steps N] [--mpi K]
// Plan i takes model i modulo their number; data is MODEL.safetensors where it exists, else a made-up text. Without a
// model those of tests/model/make_models.py and a small GPT of examples/gpt, which trains 20 steps, parameters compared
// too: it has no bias on attention's keys, whose gradient is rounding noise. `--first` goes on where a run ended, or
// shows one plan again: a failure prints its number, and the same seed draws the same plan.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>

#include "bench/support/launched_plans.h"
#include "bench/support/random_plans.h"
#include "bench/support/thread_ranks.h"
#include "model/load.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr double kLossTolerance = 1e-5, kRoundedLossTolerance = 2e-2;
/// Losses of five steps say little of gradients, whose scale AdamW divides out: their norms are compared as well.
constexpr double kNormTolerance = 1e-4, kRoundedNormTolerance = 5e-2;
constexpr double kParameterTolerance = 1e-4, kParameterFloor = 1e-6;
/// A step that takes this long hangs.
constexpr Seconds kStepLimit{60};
constexpr double kLaunchLimitSeconds = 300;

struct Settings {
  std::uint64_t seed = 1;
  int steps = 5, max_ranks = 8;
  std::int64_t global_batch = 24;
};

double norm(const std::vector<float>& values, const std::vector<float>* minus = nullptr) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = static_cast<double>(values[i]) - (minus ? (*minus)[i] : 0.0F);
    sum += x * x;
  }
  return std::sqrt(sum);
}

/// Relative. Not a number is no small difference.
double worst_difference(const std::vector<double>& ours, const std::vector<double>& expected) {
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(ours.at(i) - expected[i]) / std::fabs(expected[i]);
    worst = difference <= worst ? worst : difference;
  }
  return worst;
}

struct Outcome {
  bool ran = false;
  double loss = 0, norm = 0;  // worst difference, relative
  double parameter = 0;       // worst difference, of the bound
  int num_unequal_copies = 0;
};

/// One model, its data, and what one rank makes of it.
class Subject {
 public:
  Subject(std::filesystem::path file, const Settings& settings, bool with_parameters = false)
      : with_parameters(with_parameters),
        file_(std::move(file)),
        settings_(settings),
        graph_(or_end(model::load_pt2(file_))),
        cluster_(make_flat_cluster(settings.max_ranks)) {
    auto tensors = file_;
    tensors.replace_extension(".safetensors");
    worker::DataSettings& data = train_.data;
    if (std::filesystem::exists(tensors)) {
      data.tensors = tensors;
    } else {
      data.text = make_scratch_folder("text") / "text";
      write_text(data.text, settings.seed);
      data.sequence_length = graph_.values[graph_.inputs[0].value].dims.at(1).constant();
    }
    // As write_job's.
    data.seed = 7;
    train_.seed = 1234;
    train_.optimizer.warmup_steps = 5;
    train_.optimizer.decay = "constant";
    train_.steps = settings.steps;
  }

  const bool with_parameters;

  [[nodiscard]] std::string name() const { return file_.stem().string(); }

  [[nodiscard]] plan::Plan draw(std::uint64_t number, bool over_mpi) {
    RandomPlanOptions options;
    options.seed = settings_.seed;
    options.max_ranks = settings_.max_ranks;
    options.global_batch = settings_.global_batch;
    return draw_plan(graph_, over_mpi ? launched().cluster() : cluster_, options, number);
  }

  Outcome compare(const plan::Plan& plan, bool over_mpi) {
    const ThreadRun& serial = one_rank(plan.batch.count, plan.precision);
    const ThreadRun run = over_mpi ? launch(plan) : train_in_threads(graph_, plan, train_, kStepLimit);
    Outcome outcome;
    for (const Error& problem : run.problems) std::printf("%s", to_text(problem).c_str());
    outcome.ran = run.problems.empty() && run.losses.size() == serial.losses.size();
    outcome.num_unequal_copies = run.num_unequal_copies;
    if (outcome.ran) {
      outcome.loss = worst_difference(run.losses, serial.losses);
      outcome.norm = worst_difference(run.grad_norms, serial.grad_norms);
    }
    if (outcome.ran && with_parameters && !over_mpi && plan.precision == plan::Precision::Float32)
      for (const auto& [name, values] : serial.parameters)
        outcome.parameter = std::max(outcome.parameter, norm(run.parameters.at(name), &values) /
                                                            (kParameterTolerance * norm(values) + kParameterFloor));
    return outcome;
  }

 private:
  const ThreadRun& one_rank(std::int64_t count, plan::Precision precision) {
    const auto [known, is_new] = serial_.try_emplace({count, precision});
    if (is_new) {
      const plan::Plan plan = make_serial_plan(graph_, cluster_, settings_.global_batch, count, precision);
      known->second = train_in_threads(graph_, plan, train_, kStepLimit);
      for (const Error& problem : known->second.problems) std::printf("one rank: %s", to_text(problem).c_str());
      if (!known->second.problems.empty()) std::exit(1);
    }
    return known->second;
  }

  [[nodiscard]] TrainJob job(plan::Precision precision) const {
    TrainJob job;
    job.model = file_;
    job.text = train_.data.text;
    job.tensors = train_.data.tensors;
    job.context = static_cast<int>(train_.data.sequence_length);
    job.global_batch = static_cast<int>(settings_.global_batch);
    job.steps = settings_.steps;
    job.warmup = static_cast<int>(train_.optimizer.warmup_steps);
    job.precision = plan::to_text(precision);
    job.first_measured_step = 1;
    return job;
  }

  LaunchedPlans& launched() {
    if (!launched_) launched_.emplace(job(plan::Precision::Float32), std::to_string(settings_.max_ranks) + "xcpu");
    return *launched_;
  }

  ThreadRun launch(const plan::Plan& plan) {
    const TrainRun trained = launched().run(job(plan.precision), plan, {"--backend", "mpi"}, kLaunchLimitSeconds);
    ThreadRun run;
    run.losses = trained.losses;
    run.grad_norms = trained.grad_norms;
    if (!trained.ok) run.problems.push_back({ErrorCode::Internal, trained.failure, "launch train", "", "", ""});
    return run;
  }

  const std::filesystem::path file_;
  const Settings& settings_;
  const model::ModelGraph graph_;
  const cluster::ResourceGraph cluster_;
  worker::TrainSettings train_;
  std::map<std::pair<std::int64_t, plan::Precision>, ThreadRun> serial_;
  std::optional<LaunchedPlans> launched_;
};

struct Totals {
  int plans = 0, failed = 0, unequal_copies = 0;
  bool with_parameters = false;
  double loss = 0, rounded_loss = 0, norm = 0, rounded_norm = 0, parameter = 0;
};

void add(Totals& totals, const Outcome& outcome, plan::Precision precision) {
  const bool exact = precision == plan::Precision::Float32;
  double &loss = exact ? totals.loss : totals.rounded_loss, &norm = exact ? totals.norm : totals.rounded_norm;
  ++totals.plans;
  loss = std::max(loss, outcome.loss);
  norm = std::max(norm, outcome.norm);
  totals.parameter = std::max(totals.parameter, outcome.parameter);
  totals.unequal_copies += outcome.num_unequal_copies;
  if (!outcome.ran || !(outcome.loss <= (exact ? kLossTolerance : kRoundedLossTolerance)) ||
      !(outcome.norm <= (exact ? kNormTolerance : kRoundedNormTolerance)) || !(outcome.parameter <= 1) ||
      outcome.num_unequal_copies > 0)
    ++totals.failed;
}

void report_totals(const std::map<std::string, Totals>& all, Report& report) {
  for (const auto& [name, totals] : all) {
    const std::string text = name + ", " + std::to_string(totals.plans) + " plans: ";
    const auto row = [&](const char* what, double value, double bound, const char* unit) {
      report.add({text + what, value, bound, bound > 0 ? value / bound : value, unit,
                  "<= " + std::to_string(bound).substr(0, 7), value <= bound});
    };
    row("that fail", totals.failed, 0, "plans");
    row("worst loss, float32", totals.loss, kLossTolerance, "relative");
    row("worst gradient norm, float32", totals.norm, kNormTolerance, "relative");
    row("worst gradient norm, bfloat16", totals.rounded_norm, kRoundedNormTolerance, "relative");
    row("worst loss, bfloat16", totals.rounded_loss, kRoundedLossTolerance, "relative");
    if (totals.with_parameters) row("worst parameter", totals.parameter, 1, "of 1e-4 norm + 1e-6");
    row("copies that differ", totals.unequal_copies, 0, "copies");
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> models;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    if (i > 0 && std::string_view(argv[i]).ends_with(".pt2")) {
      models.emplace_back(std::filesystem::absolute(argv[i]));
    } else {
      rest.push_back(argv[i]);
    }
  }
  const Options options =
      parse_options(static_cast<int>(rest.size()), rest.data(), "random valid plans against one rank",
                    {"--plans", "--steps", "--first", "--ranks-max", "--mpi"});
  const auto number = [&](const char* name, int otherwise) {
    return options.other.contains(name) ? std::stoi(options.other.at(name)) : otherwise;
  };
  Settings settings;
  settings.seed = options.seed;
  settings.max_ranks = number("--ranks-max", 8);
  settings.steps = number("--steps", 5);
  Settings of_gpt = settings;
  of_gpt.steps = number("--steps", 20);
  Report report("parity", options);
  std::vector<std::unique_ptr<Subject>> subjects;
  if (models.empty()) {
    const auto gpt = make_example({.layers = 4, .width = 64, .heads = 4, .context = 32, .dropout = 0.1}) / "gpt.pt2";
    subjects.push_back(std::make_unique<Subject>(gpt, of_gpt, true));
    models = make_family_models({});
  }
  for (const auto& model : models) subjects.push_back(std::make_unique<Subject>(model, settings));
  const int first = number("--first", 0), num_plans = number("--plans", options.quick ? 6 : 60);
  const int first_over_mpi = first + num_plans - number("--mpi", 0);
  std::map<std::string, Totals> totals;
  for (int i = first; i < first + num_plans; ++i) {
    Subject& subject = *subjects[static_cast<std::size_t>(i) % subjects.size()];
    const bool over_mpi = i >= first_over_mpi;
    const plan::Plan plan = subject.draw(static_cast<std::uint64_t>(i), over_mpi);
    // Before it runs: what crashes or hangs has been named.
    std::printf("plan %d, seed %llu, %s%s: %s", i, static_cast<unsigned long long>(settings.seed),
                subject.name().c_str(), over_mpi ? " over MPI" : "", describe(plan).c_str());
    std::fflush(stdout);
    const Outcome outcome = subject.compare(plan, over_mpi);
    std::printf("  loss %.1e, norm %.1e", outcome.loss, outcome.norm);
    if (subject.with_parameters) std::printf(", parameters %.2f of the bound", outcome.parameter);
    const int failed = totals[subject.name()].failed;
    add(totals[subject.name()], outcome, plan.precision);
    totals[subject.name()].with_parameters = subject.with_parameters;
    std::printf("%s\n", totals[subject.name()].failed > failed ? "  FAILED" : "");
    std::fflush(stdout);
  }
  report_totals(totals, report);
  return report.finish();
}
