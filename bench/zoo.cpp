// What the sharding rules cover in a list of exported models (issue 5, part 1): `zoo LIST [--models FOLDER]`. LIST is
// bench/zoo.txt unless given; bench/peers/export_zoo.py exports it into FOLDER, which keeps what it has.
// Per model: operators in its graph, the share with a rule, the share that can be split, and what is missing.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "bench/support/bench.h"
#include "common/bytes_io.h"
#include "model/load.h"
#include "plan/rules/rules.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kWantedModels = 40, kWantedOperators = 150;
constexpr double kExportLimitSeconds = 3600;

struct Coverage {
  int nodes = 0, with_rule = 0, split = 0;
  std::map<std::string, int> missing;
};

Coverage cover(const model::ModelGraph& graph, std::set<std::string>& operators) {
  Coverage coverage;
  for (const model::Op& op : graph.ops) {
    ++coverage.nodes;
    const auto factors = plan::bind_rule(graph, op, graph.static_batch > 0 ? graph.static_batch : 4);
    if (!factors) {
      ++coverage.missing[op.target];
      continue;
    }
    operators.insert(op.target);
    ++coverage.with_rule;
    coverage.split += std::any_of(factors->factors.begin(), factors->factors.end(),
                                  [](const plan::Factor& factor) { return factor.kind != plan::FactorKind::Whole; })
                          ? 1
                          : 0;
  }
  return coverage;
}

double percent(int part, int all) { return all > 0 ? 100.0 * part / all : 0; }

std::vector<std::string> read_list(const std::string& file) {
  const auto text = read_file(file);
  if (!text) {
    std::fputs(to_text(text.error()).c_str(), stderr);
    std::exit(65);
  }
  std::vector<std::string> names;
  std::size_t begin = 0;
  while (begin < text->size()) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    std::string line = text->substr(begin, end - begin);
    begin = end + 1;
    if (line.empty() || line[0] == '#') continue;
    std::replace(line.begin(), line.end(), ' ', '-');
    names.push_back(line);
  }
  return names;
}

void export_models(const std::string& list, const std::filesystem::path& folder) {
  const auto result = run_process({(source_folder() / ".venv/bin/python").string(),
                                   (source_folder() / "bench/peers/export_zoo.py").string(), list, folder.string()},
                                  kExportLimitSeconds);
  if (result.exit_code == 0) return;
  std::fprintf(stderr, "export_zoo.py: exit %d\n%s", result.exit_code, result.errors.c_str());
  std::exit(1);
}

void print_missing(const std::map<std::string, int>& missing) {
  std::vector<std::pair<int, std::string>> most;
  for (const auto& [target, count] : missing) most.emplace_back(-count, target);
  std::sort(most.begin(), most.end());
  std::printf("operators without a rule, most frequent first:\n");
  for (const auto& [count, target] : most) std::printf("  %6d  %s\n", -count, target.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  std::string list = (source_folder() / "bench/zoo.txt").string();
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    if (i == 1 && argv[i][0] != '-')
      list = argv[i];
    else
      rest.push_back(argv[i]);
  }
  const Options options = parse_options(static_cast<int>(rest.size()), rest.data(),
                                        "what the sharding rules cover of a list of models", {"--models"});
  const std::filesystem::path folder = options.other.contains("--models")
                                           ? std::filesystem::path(options.other.at("--models"))
                                           : make_scratch_folder("zoo");
  const std::vector<std::string> names = read_list(list);
  export_models(list, folder);
  Report report("zoo", options);
  Coverage all;
  std::set<std::string> operators;
  int num_models = 0;
  JsonObject rows;
  for (const std::string& name : names) {
    const auto file = folder / (name + ".pt2");
    if (!std::filesystem::exists(file)) {
      const auto reason = read_file((folder / (name + ".failed")).string());
      std::printf("%-36s not exported: %s", name.c_str(), reason ? reason->c_str() : "no reason\n");
      continue;
    }
    const auto graph = model::load_pt2(file);
    if (!graph) {
      std::printf("%-36s not read:\n%s", name.c_str(), to_text(graph.error()).c_str());
      continue;
    }
    const Coverage one = cover(*graph, operators);
    std::printf("%-36s %6d nodes %6.1f %% with a rule %6.1f %% can be split ", name.c_str(), one.nodes,
                percent(one.with_rule, one.nodes), percent(one.split, one.nodes));
    for (const auto& [target, count] : one.missing) std::printf(" %s x%d", target.c_str(), count);
    std::printf("\n");
    ++num_models;
    all.nodes += one.nodes;
    all.with_rule += one.with_rule;
    all.split += one.split;
    for (const auto& [target, count] : one.missing) all.missing[target] += count;
    rows[name] = JsonObject{{"nodes", one.nodes}, {"with_rule", one.with_rule}, {"split", one.split}};
  }
  print_missing(all.missing);
  report.extra()["models"] = rows;
  const auto num_rules = static_cast<double>(plan::shard_rules().size());
  const double share = percent(all.with_rule, all.nodes) / 100;
  report.add({"models exported and read", static_cast<double>(num_models), static_cast<double>(names.size()), 0,
              "models", ">= 40", num_models >= kWantedModels});
  report.add({"operators with a rule", num_rules, 0, 0, "operators", ">= 150", num_rules >= kWantedOperators});
  report.add({"of those, in these models", static_cast<double>(operators.size()), 0, 0, "operators", "reported", true});
  report.add({"nodes with a rule", share, percent(all.split, all.nodes) / 100, 0, "share", "reported", true});
  return report.finish();
}
