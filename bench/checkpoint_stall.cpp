// What checkpoints cost a run that nothing disturbs: two ranks train a GPT of 31.6 million parameters, saving when the
// run itself chooses to (no checkpoint.every_steps). Issue row f: the share of time in which steps wait for a copy.
//
// It is taken twice. As told: `stall_seconds` of the events, the longest copy that any rank has made so far. As seen:
// from a trace of every step, the time between the end of a step and the begin of the next on the same rank, where that
// is longer than after steps that are not saved; the slowest rank's. It holds what the copy's own clock does not see (a
// wait for the checkpoint before, a core that another process has). Time runs from the first checkpoint that the run
// makes by its interval to the last, so that each interval counts with the checkpoint at its end.
//
// What the row does not ask for, but a user pays: steps beside which a shard is written take longer, since two ranks
// that compute leave no core for the two threads that hash and write.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "bench/support/open_run.h"
#include "bench/support/train_runs.h"
#include "common/json.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kContext = 64, kGlobalBatch = 4;
constexpr int kTracedActions = 100'000;  // a trace takes no more
constexpr int kFirstStep = 5;
constexpr double kMostStall = 0.02;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "checkpoint_stall: %s\n", what.c_str());
  std::exit(1);
}

/// A step on one rank, in seconds since the first traced step.
struct Span {
  double begin = 0, end = 0;
};

/// By step, then by rank. Every event stands on a line of its own.
std::map<std::int64_t, std::vector<Span>> read_steps(const std::filesystem::path& trace) {
  std::map<std::int64_t, std::vector<Span>> steps;
  std::ifstream in(trace);
  constexpr double kMicrosecond = 1e-6;
  for (std::string line; std::getline(in, line);) {
    if (line.find("\"name\":\"step ") == std::string::npos) continue;
    if (line.ends_with(',')) line.pop_back();
    const auto json = parse_json(line);
    if (!json) continue;
    const double begin = (*json)["ts"].number() * kMicrosecond, took = (*json)["dur"].number() * kMicrosecond;
    std::vector<Span>& ranks = steps[(*json)["args"]["step"].integer()];
    ranks.resize(std::max(ranks.size(), static_cast<std::size_t>((*json)["pid"].integer()) + 1));
    ranks[static_cast<std::size_t>((*json)["pid"].integer())] = {begin, begin + took};
  }
  return steps;
}

double length_of(const std::vector<Span>& ranks) {
  double longest = 0;
  for (const Span& span : ranks) longest = std::max(longest, span.end - span.begin);
  return longest;
}

double end_of(const std::vector<Span>& ranks) {
  double last = 0;
  for (const Span& span : ranks) last = std::max(last, span.end);
  return last;
}

/// Between two steps, on the rank where it is longest.
double gap_between(const std::vector<Span>& before, const std::vector<Span>& after) {
  double longest = 0;
  for (std::size_t rank = 0; rank < std::min(before.size(), after.size()); ++rank)
    longest = std::max(longest, after[rank].begin - before[rank].end);
  return longest;
}

struct Saved {
  std::int64_t step = 0;
  double stall = 0, write = 0;  // the longest of any rank so far, seconds
};

/// Those that the run chose: not the one that a request to stop makes.
std::vector<Saved> read_saved(const std::filesystem::path& run, std::int64_t last_step) {
  std::vector<Saved> saved;
  for (const Json& event : read_lines(run / "events.jsonl")) {
    if (event["type"] == Json("checkpoint_failed")) fail("a checkpoint failed: " + to_text(event));
    if (event["type"] != Json("checkpoint_saved") || event["step"].integer() >= last_step) continue;
    saved.push_back({event["step"].integer(), event["stall_seconds"].number(), event["write_seconds"].number()});
  }
  return saved;
}

/// What one run shows between its first checkpoint and its last.
struct Cost {
  double seconds = 0;              // from the first to the last
  std::vector<double> intervals;   // seconds
  std::vector<double> told, seen;  // stall of each but the first, seconds
  double usual_gap = 0;            // between two steps without a checkpoint
  double usual_step = 0;           // median of steps beside which nothing is written
  std::vector<double> beside;      // steps that begin while a shard is written, seconds
};

Cost cost_of(const std::map<std::int64_t, std::vector<Span>>& steps, const std::vector<Saved>& saved) {
  Cost cost;
  const std::int64_t first = saved.front().step, last = saved.back().step;
  std::map<std::int64_t, double> written;  // by saved step: until when, at most
  for (const Saved& one : saved) written[one.step] = end_of(steps.at(one.step)) + one.write;
  std::vector<double> gaps, usual;
  for (std::int64_t step = first; step < last; ++step) {
    const double gap = gap_between(steps.at(step), steps.at(step + 1));
    if (!written.contains(step)) gaps.push_back(gap);
    const auto before = --written.upper_bound(step);  // the checkpoint at this step or before it
    const double begin = steps.at(step + 1).front().begin;
    (begin < before->second ? cost.beside : usual).push_back(length_of(steps.at(step + 1)));
  }
  cost.usual_gap = median(gaps);
  cost.usual_step = median(usual);
  cost.seconds = end_of(steps.at(last)) - end_of(steps.at(first));
  for (std::size_t i = 1; i < saved.size(); ++i) {
    const std::int64_t step = saved[i].step;
    cost.intervals.push_back(end_of(steps.at(step)) - end_of(steps.at(saved[i - 1].step)));
    cost.told.push_back(saved[i].stall);
    cost.seen.push_back(std::max(0.0, gap_between(steps.at(step), steps.at(step + 1)) - cost.usual_gap));
  }
  return cost;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

/// How many steps a trace of all its actions may have.
int traceable_steps(const std::filesystem::path& plan_file) {
  std::ifstream in(plan_file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const Json plan = or_end(parse_json(text));
  std::size_t actions = 0;
  for (const Json& role : plan["plan"]["roles"].array())
    actions += role["actions"].array().size() * role["replicas"].array().size();
  if (actions == 0) fail("a plan without actions: " + plan_file.string());
  return static_cast<int>(kTracedActions / actions);
}

void tell(const Cost& cost, const std::vector<Saved>& saved, Report& report) {
  const double told = sum(cost.told) / cost.seconds, seen = sum(cost.seen) / cost.seconds;
  double slower = 0;
  for (const double step : cost.beside) slower += step - cost.usual_step;
  const double beside = median(cost.beside) / cost.usual_step;
  const auto [shortest, longest] = std::minmax_element(cost.intervals.begin(), cost.intervals.end());
  std::printf("%zu checkpoints after the first in %.0f s; intervals %.1f to %.1f s, median %.1f s\n", cost.told.size(),
              cost.seconds, *shortest, *longest, median(cost.intervals));
  std::printf("stall, each: told (longest so far) %.3f s, seen %.3f s median, %.3f s longest; writing %.2f s\n",
              saved.back().stall, median(cost.seen), *std::max_element(cost.seen.begin(), cost.seen.end()),
              saved.back().write);
  std::printf("steps: %.3f s usually, %.2f times as long while a shard is written (%zu of them, %.1f s more in all)\n",
              cost.usual_step, beside, cost.beside.size(), slower);
  std::printf("not asked for by the row: %.2f %% of time in slower steps beside writing, %.2f %% with the stall\n",
              100 * slower / cost.seconds, 100 * (slower / cost.seconds + seen));
  report.add(
      {"checkpoint stall, share of time, as told", 100 * told, 0, told / kMostStall, "%", "<= 2", told <= kMostStall});
  report.add(
      {"checkpoint stall, share of time, as seen", 100 * seen, 0, seen / kMostStall, "%", "<= 2", seen <= kMostStall});
  report.extra() = JsonObject{{"checkpoints", static_cast<std::int64_t>(cost.told.size())},
                              {"seconds", cost.seconds},
                              {"interval_seconds", median(cost.intervals)},
                              {"stall_seconds_told", saved.back().stall},
                              {"stall_seconds_seen", median(cost.seen)},
                              {"write_seconds", saved.back().write},
                              {"step_seconds", cost.usual_step},
                              {"beside_writing_ratio", beside},
                              {"slower_steps_fraction", slower / cost.seconds}};
}

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "what checkpoints cost a run", {"--seconds", "--layers", "--width"});
  const auto option = [&](const char* name, const char* otherwise) {
    return std::stoi(options.other.contains(name) ? options.other.at(name) : otherwise);
  };
  const int seconds = option("--seconds", options.quick ? "200" : "500");
  Report report("checkpoint_stall", options);
  TrainJob job{
      .example = make_example(
          {.layers = option("--layers", "10"), .width = option("--width", "512"), .heads = 8, .context = kContext}),
      .context = kContext,
      .global_batch = kGlobalBatch,
      .steps = kFirstStep,
      .plan = "{data: 2}"};
  const TrainRun short_run = run_train(job, {"--devices", "2xcpu"}, 300);
  if (!short_run.ok) fail(short_run.failure);

  const auto plan = short_run.run_dir / "plan-1.json";
  job.plan = "";
  job.steps = traceable_steps(plan);
  const std::string traced = "1-" + std::to_string(job.steps);
  OpenRun run(job, {"--devices", "2xcpu", "--plan", plan.string(), "--trace-steps", traced});
  run.wait_steps(1, 120);
  run.wait(seconds);
  run.stop();

  const auto steps = read_steps(run.folder() / "trace" / ("steps_" + traced + ".json"));
  if (steps.size() < 2) fail("no steps in the trace");
  const auto saved = read_saved(run.folder(), steps.rbegin()->first);
  if (saved.size() < 2) fail("fewer than two checkpoints: give it more --seconds");
  tell(cost_of(steps, saved), saved, report);
  return report.finish();
}
