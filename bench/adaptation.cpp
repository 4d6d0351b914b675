// Jobs that begin with files that are wrong tenfold: about the link between two nodes (in network namespaces, its rate
// limited; the cluster file says ten times that), and about one device (a tenth of a core; cluster file and profile say
// that it computes ten times as fast). Each must find out by its own steps, plan again, and end at least 1.3 times as
// fast as it began, with the losses of a run whose files are right. Issue row m. Needs root, ip and tc for the link.
// The right files are those of that other run, which measures.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>

#include "bench/support/network_link.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr double kWrong = 10, kLeastGain = 1.3, kLossTolerance = 1e-5;
// Of both ends: the first steps of a process warm up.
constexpr int kWarmSteps = 2, kLastSteps = 15;

Json read_json(const std::filesystem::path& file) {
  const auto text = read_file(file);
  if (!text) {
    std::fprintf(stderr, "no file %s\n", file.c_str());
    std::exit(1);
  }
  return or_end(parse_json(*text));
}

std::vector<Json> read_lines(const std::filesystem::path& file) {
  std::vector<Json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (auto json = parse_json(line)) lines.push_back(std::move(*json));
  }
  return lines;
}

void scale(Json& object, const std::string& key, double factor) {
  Json& value = object.object()[key];
  if (value.is_number())
    value = value.number() * factor;
  else
    value.object()["value"] = value.object()["value"].number() * factor;
}

/// Links between nodes have ten times the bandwidth.
void falsify_links(Json& cluster) {
  for (const char* list : {"tiers", "link_overrides"}) {
    if (!cluster[list].is_array()) continue;
    for (Json& entry : cluster.object()[list].array())
      scale(entry.object()["link"], "bandwidth_bytes_per_second", kWrong);
  }
}

/// The class computes ten times as fast.
void falsify_device(Json& cluster, Json& profile, const std::string& device_class) {
  for (Json& device : cluster.object()["device_classes"].array()) {
    if (device["name"].string() != device_class) continue;
    for (const char* key :
         {"memory_bandwidth_bytes_per_second", "peak_float32_flop_per_second", "peak_bfloat16_flop_per_second"})
      scale(device, key, kWrong);
  }
  for (Json& block : profile.object()["blocks"].array()) {
    if (block["device_class"].string() != device_class) continue;
    for (const char* key : {"forward_seconds", "backward_seconds"}) scale(block, key, 1 / kWrong);
  }
  for (Json& rates : profile.object()["devices"].array()) {
    if (rates["device_class"].string() != device_class) continue;
    for (const char* key : {"optimizer_seconds_per_parameter", "norm_seconds_per_parameter", "step_overhead_seconds",
                            "action_overhead_seconds"})
      scale(rates, key, 1 / kWrong);
  }
}

/// cluster.json and profile.json as that run measured them, made wrong. Returns the cluster file.
std::filesystem::path write_wrong_files(const TrainRun& right, const std::function<void(Json&, Json&)>& falsify) {
  Json cluster = read_json(right.run_dir / "cluster.json"), profile = read_json(right.run_dir / "profile.json");
  falsify(cluster, profile);
  const auto folder = make_scratch_folder("wrong-files");
  std::ofstream(folder / "cluster.json") << to_text(cluster);
  std::ofstream(folder / "profile.json") << to_text(profile);
  return folder / "cluster.json";
}

/// Median seconds of a step at the run's beginning (its first generation) and at its end.
struct Ends {
  double first = 0, last = 0;
  int generations = 0;
};
Ends ends_of(const TrainRun& run) {
  std::vector<double> first, last;
  const std::vector<Json> rows = read_lines(run.run_dir / "metrics.jsonl");
  Ends ends;
  for (const Json& row : rows) {
    const double seconds = row["step_seconds"].number();
    ends.generations = std::max(ends.generations, static_cast<int>(row["generation"].integer()));
    if (row["generation"].integer() == 1 && row["step"].integer() > kWarmSteps) first.push_back(seconds);
    if (row["step"].integer() > rows.back()["step"].integer() - kLastSteps) last.push_back(seconds);
  }
  ends.first = median(first);
  ends.last = median(last);
  return ends;
}

/// Largest relative difference of a loss.
double farthest(const std::vector<double>& a, const std::vector<double>& b) {
  double far = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    far = std::max(far, std::fabs(a[i] - b[i]) / std::fabs(b[i]));
  return far;
}

void print_events(const TrainRun& run) {
  for (const Json& event : read_lines(run.run_dir / "events.jsonl")) {
    const std::string& type = event["type"].string();
    if (type == "plan_chosen" || type == "replanned")
      std::printf("  %s: %s, predicted %.1f ms, searched %.2f s\n", type.c_str(), event["summary"].string().c_str(),
                  event["predicted_step_seconds"].number() * 1e3, event["search_seconds"].number());
    if (type == "calibrated") std::printf("  %s\n", to_text(event).c_str());
    if (type == "generation_started" && event["after_step"].is_integer())
      std::printf("  generation %lld after step %lld\n", static_cast<long long>(event["generation"].integer()),
                  static_cast<long long>(event["after_step"].integer()));
  }
}

void compare(Report& report, const std::string& what, const TrainRun& wrong, const TrainRun& right) {
  const Ends ends = ends_of(wrong), best = ends_of(right);
  std::printf("%s: right files %.1f ms a step in the end (%d generations)\n", what.c_str(), best.last * 1e3,
              best.generations);
  print_events(right);
  std::printf("%s: wrong files %.1f ms a step at first, %.1f ms in the end (%d generations)\n", what.c_str(),
              ends.first * 1e3, ends.last * 1e3, ends.generations);
  print_events(wrong);
  std::fflush(stdout);
  const double gain = ends.first / ends.last, far = farthest(wrong.losses, right.losses);
  report.add({what + ": at first, against in the end", ends.last, ends.first, gain, "s a step", ">= 1.3",
              gain >= kLeastGain && ends.generations > 1});
  report.add({what + ": losses, against the right files' run", far, kLossTolerance, far / kLossTolerance, "relative",
              "<= 1e-5", far <= kLossTolerance});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "runs whose files are wrong tenfold about a link or a device",
                                        {"--rate", "--steps", "--only", "--devices", "--layers", "--batch"});
  const auto flag = [&](const std::string& name, const std::string& otherwise) {
    return options.other.contains(name) ? options.other.at(name) : otherwise;
  };
  const std::string rate = flag("--rate", "200mbit"), only = flag("--only", ""),
                    devices = flag("--devices", "cpu@1.0,cpu@0.1");
  const int steps = std::stoi(flag("--steps", options.quick ? "40" : "80"));
  Report report("adaptation", options);
  // Three layers cannot be cut evenly: over a fast link replicas are better than stages, over a slow one they are not.
  const int layers = std::stoi(flag("--layers", "3"));
  // With fewer samples stages are better over a fast link too, on a machine that nothing else uses.
  const int batch = std::stoi(flag("--batch", "16"));
  const auto example = make_example({.layers = layers, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  TrainJob job{.example = example, .context = 128, .global_batch = batch, .steps = steps, .plan = ""};
  if (only.empty() || only == "link") {
    NetworkLink link;
    link.limit(rate);
    const TrainRun right = run_over(link, job, "cpu@1.0");
    TrainJob falsified = job;
    falsified.cluster = write_wrong_files(right, [](Json& cluster, Json&) { falsify_links(cluster); });
    compare(report, "link of " + rate, run_over(link, falsified, "cpu@1.0"), right);
  }
  if (only.empty() || only == "device") {
    const auto run = [&](const TrainJob& of) {
      TrainRun made = run_train(of, {"--devices", devices}, 900);
      if (!made.ok) {
        std::fprintf(stderr, "%s\n", made.failure.c_str());
        std::exit(1);
      }
      return made;
    };
    const TrainRun right = run(job);
    const Json cluster = read_json(right.run_dir / "cluster.json");
    const std::string slow = cluster["device_classes"].array().back()["name"].string();
    TrainJob falsified = job;
    falsified.cluster =
        write_wrong_files(right, [&](Json& graph, Json& profile) { falsify_device(graph, profile, slow); });
    compare(report, "device " + slow, run(falsified), right);
  }
  return report.finish();
}
