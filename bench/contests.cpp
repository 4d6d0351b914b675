// Published planning problems against published answers: `contests DIR --answers OUT` solves every row of
// DIR/scores.csv, writes the answers in their documented forms and prints peer, ours, ratio and seconds. The referee is
// DIR/evaluate/table.py over OUT; the scores printed here are our own reading of the same formulas. Issue rows a to d.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "bench/support/bench.h"
#include "common/bytes_io.h"
#include "common/clock.h"
#include "planner/problems/contest.h"

using namespace coxswain;
using namespace coxswain::bench;
using planner::ContestAnswer;
using planner::ContestFamily;
using planner::ContestOptions;

namespace {

/// Lines of comma-separated fields, quotes around those that hold a comma.
std::vector<std::map<std::string, std::string>> read_csv(const std::string& text) {
  std::vector<std::vector<std::string>> lines{{""}};
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      lines.back().emplace_back();
    } else if (c == '\n' && !quoted) {
      lines.push_back({""});
    } else if (c != '\r') {
      lines.back().back() += c;
    }
  }
  std::vector<std::map<std::string, std::string>> rows;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].size() < lines[0].size()) continue;
    for (std::size_t column = 0; column < lines[0].size(); ++column) {
      if (column == 0) rows.emplace_back();
      rows.back()[lines[0][column]] = lines[i][column];
    }
  }
  return rows;
}

double number(const std::string& text) { return text.empty() ? 0 : std::stod(text); }

class Contest {
 public:
  Contest(std::filesystem::path folder, std::filesystem::path answers, Report& report)
      : folder_(std::move(folder)), answers_(std::move(answers)), report_(report) {}

  void run(const std::map<std::string, std::string>& row) {
    const std::string& family = row.at("contest");
    std::string name = family + "/" + row.at("instance");
    // Such a row is scored by published run times, so our own cost model answers it.
    const auto measured = name.find(" (measured)");
    if (measured != std::string::npos) name = name.substr(0, measured) + "-measured";
    const auto& families = planner::contest_families();
    const auto known =
        std::find_if(families.begin(), families.end(), [&](const ContestFamily& each) { return each.name == family; });
    if (known == families.end()) return fail(name, "no such family");
    const std::filesystem::path file = folder_ / row.at("instance_file");
    const auto text = read_file(file);
    if (!text) return fail(name, to_text(text.error()));
    const auto json = parse_json(*text);
    if (!json) return fail(name, to_text(json.error()));
    const auto solver = known->load(*json, file);
    if (!solver) return fail(name, to_text(solver.error()));
    const bool maximise = row.at("goal").rfind("max", 0) == 0;
    solve(*solver, {.own_cost_model = measured != std::string::npos}, name, row.at("target"), row.at("target_s"),
          maximise);
    if (const auto strict = row.find("strict_target"); strict != row.end() && !strict->second.empty())
      solve(*solver, {.strict = true}, name + ".strict", strict->second, row.at("target_s"), maximise);
  }

 private:
  void solve(const planner::ContestSolver& solver, const ContestOptions& options, const std::string& name,
             const std::string& target_text, const std::string& limit_text, bool maximise) {
    const TimePoint begin = steady_clock().now();
    const auto answer = solver(options);
    const double seconds = std::chrono::duration<double>(steady_clock().now() - begin).count();
    if (!answer) return fail(name, to_text(answer.error()));
    const auto path = answers_ / (name + ".json");
    std::filesystem::create_directories(path.parent_path());
    if (const auto written = write_file(path, to_text(answer->answer) + "\n"); !written)
      return fail(name, to_text(written.error()));
    const double target = number(target_text), limit = number(limit_text);
    if (options.own_cost_model) return;  // only the referee may look at the measured times
    const double ratio = maximise ? answer->score / target : target / answer->score;
    char goal[64];
    std::snprintf(goal, sizeof goal, "%s %.8g, %.3f s of %.3g", maximise ? ">=" : "<=", target, seconds, limit);
    report_.add({name, answer->score, target, ratio, maximise ? "higher" : "lower", goal,
                 ratio >= 1 - 1e-6 && (limit_text.empty() || seconds <= limit)});
  }
  void fail(const std::string& name, const std::string& why) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), why.c_str());
    report_.add({name, 0, 0, 0, "", "an answer", false});
  }

  std::filesystem::path folder_, answers_;
  Report& report_;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<char*> rest;
  std::filesystem::path folder;
  for (int i = 0; i < argc; ++i) {
    if (i == 1 && argv[i][0] != '-') {
      folder = argv[i];
    } else {
      rest.push_back(argv[i]);
    }
  }
  const Options options =
      parse_options(static_cast<int>(rest.size()), rest.data(),
                    "published planning problems: contests DIR --answers OUT", {"--answers", "--only"});
  const auto scores = read_file(folder / "scores.csv");
  if (!scores) {
    std::cerr << to_text(scores.error()) << "usage: contests DIR --answers OUT [--only FAMILY]\n";
    return 64;
  }
  Report report("contests", options);
  const std::filesystem::path answers =
      options.other.contains("--answers") ? options.other.at("--answers") : make_scratch_folder("answers").string();
  Contest contest(folder, answers, report);
  const std::string only = options.other.contains("--only") ? options.other.at("--only") : "";
  for (const auto& row : read_csv(*scores)) {
    if (only.empty() || row.at("contest") == only) contest.run(row);
  }
  return report.finish();
}
