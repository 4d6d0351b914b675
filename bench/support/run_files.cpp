#include "bench/support/run_files.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>

namespace coxswain::bench {
namespace {

constexpr std::int64_t kStepsAfterChange = 20;

int count_in(const std::string& text, const std::string& mark) {
  int count = 0;
  for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) ++count;
  return count;
}

/// All but a line that is being written.
void each_line(const std::filesystem::path& file, const std::function<void(const Json&)>& use) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (const auto json = parse_json(line)) use(*json);
  }
}

/// First steps of each plan after the first; 0 for the first.
std::vector<std::int64_t> after_changes(const RunFolders& runs) {
  std::vector<std::int64_t> first{0};
  bool changes = false;
  for (const auto& run : runs)
    each_line(run / "events.jsonl", [&](const Json& event) {
      if (event["type"] == Json("replanned")) changes = true;
      if (event["type"] != Json("generation_started")) return;
      if (changes && event["after_step"].is_integer()) first.push_back(event["after_step"].integer() + 1);
      changes = false;
    });
  return first;
}

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

int count_events(const std::filesystem::path& run, const std::string& type) {
  return count_in(read_text(run / "events.jsonl"), "\"type\":\"" + type + "\"");
}

int count_failures(const std::filesystem::path& run) {
  const std::string text = read_text(run / "events.jsonl");
  return count_in(text, "\"type\":\"worker_failed\"") + count_in(text, "\"type\":\"node_lost\"");
}

Json last_event(const std::filesystem::path& run, const std::vector<std::string>& types) {
  Json last;
  each_line(run / "events.jsonl", [&](const Json& event) {
    if (std::any_of(types.begin(), types.end(), [&](const auto& type) { return event["type"] == Json(type); }))
      last = event;
  });
  return last;
}

int count_steps(const std::filesystem::path& run) {
  const std::string text = read_text(run / "metrics.jsonl");
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

void add_goodput(const RunFolders& runs, std::map<std::string, double>& seconds) {
  for (const auto& run : runs)
    each_line(run / "events.jsonl", [&](const Json& event) {
      if (event["type"] != Json("goodput")) return;
      for (const auto& [name, value] : event.object())
        if (name.ends_with("_seconds") && value.is_number()) seconds[name] += value.number();
    });
}

double goodput_seconds(const std::filesystem::path& run, const std::string& name) {
  std::map<std::string, double> seconds;
  add_goodput({run}, seconds);
  return seconds[name];
}

Steps read_steps(const RunFolders& runs) {
  Steps steps;
  for (const auto& run : runs) {
    std::ifstream in(run / "metrics.jsonl");
    for (std::string line; std::getline(in, line); ++steps.rows) {
      const auto json = parse_json(line);
      steps.whole = steps.whole && json.has_value();
      if (json) steps.losses[(*json)["step"].integer()] = to_text((*json)["loss"]);
    }
  }
  return steps;
}

double farthest_after_changes(const RunFolders& runs, const Steps& got, const Steps& expected) {
  double far = 0;
  for (const std::int64_t first : after_changes(runs)) {
    for (std::int64_t step = first; step < first + kStepsAfterChange; ++step) {
      const auto a = got.losses.find(step), b = expected.losses.find(step);
      if (a == got.losses.end() || b == expected.losses.end()) continue;
      const double x = std::atof(a->second.c_str()), y = std::atof(b->second.c_str());
      far = std::max(far, std::fabs(x - y) / std::fabs(y));
    }
  }
  return far;
}

std::string plans_of(const RunFolders& runs, std::size_t most) {
  std::vector<std::string> plans;
  for (const auto& run : runs)
    each_line(run / "events.jsonl", [&](const Json& event) {
      if (event["summary"].is_string()) plans.push_back(event["summary"].string());
    });
  std::string text = plans.size() > most ? "... " : "";
  for (std::size_t i = plans.size() > most ? plans.size() - most : 0; i < plans.size(); ++i)
    text += (text.empty() || text == "... " ? "" : ", then ") + plans[i];
  return text;
}

std::int64_t newest_checkpoint(const std::filesystem::path& directory) {
  std::int64_t newest = -1;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(directory, none)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("step_") || name.find_first_not_of("0123456789", 5) != std::string::npos) continue;
    newest = std::max<std::int64_t>(newest, std::atoll(name.c_str() + 5));
  }
  return newest;
}

}  // namespace coxswain::bench
