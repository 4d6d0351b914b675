#include "planner/problems/piper.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "common/bytes_io.h"
#include "planner/problems/piper_file.h"
#include "planner/problems/piper_search.h"

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxCount = 1'000'000;

Error problem_at(std::string path, std::string message, std::string expected, std::string got) {
  return Error{ErrorCode::InvalidArgument, std::move(message), std::move(path),
               std::move(expected),        std::move(got),     ""};
}

std::string item(const std::string& list, std::size_t i) { return list + "[" + std::to_string(i) + "]"; }

/// Reads the two documents; what is wrong is collected, and dependent parts are read only from sound ones.
class Reader {
 public:
  Result<PiperInstance> read(const Json& instance, const Json& model) {
    read_limits(instance);
    JsonReader reader(model, "model");
    const JsonArray& nodes = reader.array("nodes");
    const JsonArray& edges = reader.array("edges");
    append(reader.take_problems());
    read_nodes(nodes);
    read_edges(edges);
    if (problems_.empty()) {
      for (std::size_t v = 0; v < nodes.size(); ++v) read_options(nodes[v], v);
    }
    if (problems_.empty()) check_no_cycle();
    if (problems_.empty()) return std::move(instance_);
    return combine_errors(ErrorCode::InvalidArgument, "the Piper instance has problems", std::move(problems_));
  }

 private:
  void append(std::vector<Error> problems) {
    problems_.insert(problems_.end(), std::make_move_iterator(problems.begin()),
                     std::make_move_iterator(problems.end()));
  }

  double amount(JsonReader& reader, const std::string& key, bool positive = false) {
    const double value = reader.number(key);
    if (reader.has(key) && (positive ? !(value > 0) : !(value >= 0)))
      reader.problem(problem_at(key, "wrong value", positive ? "a positive number" : "a number, at least 0",
                                std::to_string(value)));
    return value;
  }

  void read_limits(const Json& json) {
    JsonReader reader(json, "instance");
    if (reader.has("id")) reader.string("id");
    reader.any("model_file");
    instance_.devices = reader.integer("devices", 1, kMaxCount);
    instance_.micro_batches = reader.integer("microbatches", 1, std::int64_t{1} << 40);
    instance_.memory_bytes = amount(reader, "memory_bytes_per_device");
    instance_.bytes_per_second = amount(reader, "bandwidth_bytes_per_s", true);
    append(reader.take_problems());
  }

  void read_nodes(const JsonArray& nodes) {
    if (nodes.empty()) problems_.push_back(problem_at("model.nodes", "no nodes", "at least one", "none"));
    for (std::size_t v = 0; v < nodes.size(); ++v) {
      JsonReader reader(nodes[v], item("model.nodes", v));
      if (reader.has("name")) reader.string("name");
      reader.array("options");
      PiperNode node;
      node.id = reader.integer("id", 0, std::int64_t{1} << 40);
      if (!position_.emplace(node.id, static_cast<int>(v)).second)
        reader.problem(problem_at("id", "two nodes have one id", "another id", std::to_string(node.id)));
      append(reader.take_problems());
      instance_.nodes.push_back(std::move(node));
    }
  }

  std::optional<int> known_node(const Json& id) const {
    if (!id.is_integer()) return std::nullopt;
    const auto found = position_.find(id.integer());
    return found == position_.end() ? std::nullopt : std::optional(found->second);
  }

  void read_edges(const JsonArray& edges) {
    for (std::size_t e = 0; e < edges.size(); ++e) {
      const Json& edge = edges[e];
      const bool shaped = edge.is_array() && edge.array().size() == 3 && edge.array()[2].is_number();
      const auto from = shaped ? known_node(edge.array()[0]) : std::nullopt;
      const auto to = shaped ? known_node(edge.array()[1]) : std::nullopt;
      if (!from || !to || *from == *to || !(edge.array()[2].number() >= 0)) {
        problems_.push_back(problem_at(item("model.edges", e), "not an edge",
                                       "[from, to, bytes] with two different known nodes", to_text(edge)));
        continue;
      }
      const auto position = static_cast<int>(instance_.edges.size());
      instance_.edges.push_back({*from, *to, edge.array()[2].number()});
      instance_.nodes[static_cast<std::size_t>(*from)].out_edges.push_back(position);
      instance_.nodes[static_cast<std::size_t>(*to)].in_edges.push_back(position);
    }
  }

  /// `key` is a list of [node, bytes]; the answer has an entry per edge of `edges`.
  std::vector<double> read_sync(JsonReader& reader, const std::string& key, const std::vector<int>& edges, bool in) {
    std::map<int, double> bytes;
    const JsonArray& entries = reader.array(key);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const Json& entry = entries[i];
      const bool shaped = entry.is_array() && entry.array().size() == 2 && entry.array()[1].is_number();
      const auto node = shaped ? known_node(entry.array()[0]) : std::nullopt;
      if (node && entry.array()[1].number() >= 0) {
        bytes[*node] = entry.array()[1].number();
      } else {
        reader.problem(problem_at(item(key, i), "not a sync entry", "[known node, bytes]", to_text(entry)));
      }
    }
    std::vector<double> sync;
    for (const int e : edges) {
      const PiperEdge& edge = instance_.edges[static_cast<std::size_t>(e)];
      const int other = in ? edge.from : edge.to;
      const auto found = bytes.find(other);
      if (found == bytes.end()) {
        const std::int64_t id = instance_.nodes[static_cast<std::size_t>(other)].id;
        reader.problem(
            problem_at(key, "an edge without sync bytes", "an entry for node " + std::to_string(id), "none"));
      }
      sync.push_back(found == bytes.end() ? 0 : found->second);
    }
    return sync;
  }

  void read_options(const Json& json, std::size_t v) {
    PiperNode& node = instance_.nodes[v];
    const std::string path = item("model.nodes", v) + ".options";
    const JsonArray& options = json["options"].array();
    if (options.empty()) problems_.push_back(problem_at(path, "no options", "at least one", "none"));
    for (std::size_t i = 0; i < options.size(); ++i) {
      JsonReader reader(options[i], item(path, i));
      PiperOption option;
      option.tp = reader.integer("tp", 1, kMaxCount);
      const std::string variant = reader.string("variant");
      option.recompute = variant == "activation recomp";
      if (!option.recompute && variant != "vanilla")
        reader.problem(problem_at("variant", "unknown variant", "vanilla, activation recomp", variant));
      option.seconds = amount(reader, "seconds");
      option.parameter_bytes = amount(reader, "parameter_bytes");
      option.stash_bytes = amount(reader, "memory_per_stash");
      option.fixed_bytes = amount(reader, "memory_fixed");
      option.sync_in = read_sync(reader, "sync_in", node.in_edges, true);
      option.sync_out = read_sync(reader, "sync_out", node.out_edges, false);
      if (find_option(node, option.tp, option.recompute) != nullptr)
        reader.problem(problem_at("", "two options are alike", "one per tp and variant", "a second"));
      append(reader.take_problems());
      node.options.push_back(std::move(option));
    }
    std::sort(node.options.begin(), node.options.end(), [](const PiperOption& a, const PiperOption& b) {
      return a.tp != b.tp ? a.tp < b.tp : a.recompute < b.recompute;
    });
  }

  void check_no_cycle() {
    std::vector<std::size_t> waiting;
    std::vector<int> ready;
    for (std::size_t v = 0; v < instance_.nodes.size(); ++v) {
      waiting.push_back(instance_.nodes[v].in_edges.size());
      if (waiting.back() == 0) ready.push_back(static_cast<int>(v));
    }
    for (std::size_t next = 0; next < ready.size(); ++next) {
      for (const int e : instance_.nodes[static_cast<std::size_t>(ready[next])].out_edges) {
        const int to = instance_.edges[static_cast<std::size_t>(e)].to;
        if (--waiting[static_cast<std::size_t>(to)] == 0) ready.push_back(to);
      }
    }
    if (ready.size() < instance_.nodes.size())
      problems_.push_back(
          problem_at("model.edges", "the edges form a cycle", "a graph without cycles",
                     std::to_string(instance_.nodes.size() - ready.size()) + " nodes in or behind one"));
  }

  PiperInstance instance_;
  std::map<std::int64_t, int> position_;
  std::vector<Error> problems_;
};

std::string stage_path(std::size_t i) { return item("stages", i); }

/// Rules (1) to (4). Returns the stage of each node, -1 where there is none.
std::vector<int> place(const PiperInstance& instance, const std::vector<PiperStage>& stages,
                       std::vector<Error>& problems) {
  std::vector<int> stage_of(instance.nodes.size(), -1);
  std::int64_t devices = 0, replicas = 0;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const PiperStage& stage = stages[i];
    if (stage.dp < 1 || stage.tp < 1 || stage.dp > kMaxCount || stage.tp > kMaxCount || stage.nodes.empty() ||
        instance.micro_batches % stage.dp != 0) {
      problems.push_back(problem_at(stage_path(i), "not a stage", "nodes, tp and a dp that divides the micro-batches",
                                    "dp " + std::to_string(stage.dp) + ", tp " + std::to_string(stage.tp)));
      continue;
    }
    devices += stage.dp * stage.tp;
    replicas += stage.dp;
    for (const int v : stage.nodes) {
      const bool known = v >= 0 && v < static_cast<int>(stage_of.size());
      if (!known || stage_of[static_cast<std::size_t>(v)] >= 0) {
        problems.push_back(
            problem_at(stage_path(i), "a node is unknown or used twice", "each once", std::to_string(v)));
        continue;
      }
      stage_of[static_cast<std::size_t>(v)] = static_cast<int>(i);
    }
    for (const int v : stage.recompute_nodes) {
      if (std::find(stage.nodes.begin(), stage.nodes.end(), v) == stage.nodes.end())
        problems.push_back(problem_at(stage_path(i), "recomputes a node of another stage", "own", std::to_string(v)));
    }
  }
  const bool complete = std::count(stage_of.begin(), stage_of.end(), -1) == 0;
  if (!complete) problems.push_back(problem_at("stages", "nodes are in no stage", "every node", ""));
  for (const PiperEdge& edge : instance.edges) {
    if (complete && stage_of[static_cast<std::size_t>(edge.from)] > stage_of[static_cast<std::size_t>(edge.to)])
      problems.push_back(problem_at("stages", "an edge leads to an earlier stage", "none", ""));
  }
  if (devices > instance.devices || replicas > instance.micro_batches)
    problems.push_back(problem_at("stages", "too many devices", std::to_string(instance.devices),
                                  std::to_string(devices) + ", sum of dp " + std::to_string(replicas)));
  return stage_of;
}

/// Formulas (6) to (9) for stage `i`, which keeps `stashes`.
double stage_load(const PiperInstance& instance, const PiperStage& stage, int i, double stashes,
                  const std::vector<int>& stage_of, std::vector<Error>& problems) {
  const auto d = static_cast<double>(stage.dp), n = static_cast<double>(instance.micro_batches);
  double seconds = 0, edge_bytes = 0, sync = 0, memory = 0;
  for (const int v : stage.nodes) {
    const PiperNode& node = instance.nodes[static_cast<std::size_t>(v)];
    const bool recompute =
        std::find(stage.recompute_nodes.begin(), stage.recompute_nodes.end(), v) != stage.recompute_nodes.end();
    const PiperOption* option = find_option(node, stage.tp, recompute);
    if (option == nullptr) {
      problems.push_back(problem_at(stage_path(static_cast<std::size_t>(i)), "a node lacks an option", "another tp",
                                    "node " + std::to_string(node.id) + ", tp " + std::to_string(stage.tp)));
      continue;
    }
    seconds += option->seconds;
    double in = 0, out = 0;
    for (std::size_t k = 0; k < node.in_edges.size(); ++k) {
      const PiperEdge& edge = instance.edges[static_cast<std::size_t>(node.in_edges[k])];
      if (stage_of[static_cast<std::size_t>(edge.from)] != i) in += 2 * (edge.bytes + option->sync_in[k]);
    }
    for (std::size_t k = 0; k < node.out_edges.size(); ++k) {
      const PiperEdge& edge = instance.edges[static_cast<std::size_t>(node.out_edges[k])];
      if (stage_of[static_cast<std::size_t>(edge.to)] != i) out += 2 * (edge.bytes + option->sync_out[k]);
    }
    edge_bytes += in;
    edge_bytes += out;
    sync += 4 * (d - 1) * option->parameter_bytes / d / n;
    memory += option->stash_bytes * stashes + option->fixed_bytes;
  }
  if (memory > instance.memory_bytes)
    problems.push_back(problem_at(stage_path(static_cast<std::size_t>(i)), "does not fit in memory",
                                  std::to_string(instance.memory_bytes), std::to_string(memory)));
  return (edge_bytes / d + sync) / instance.bytes_per_second + seconds / d;
}

Json ids(const PiperInstance& instance, const std::vector<int>& nodes) {
  JsonArray list;
  for (const int v : nodes) list.emplace_back(instance.nodes[static_cast<std::size_t>(v)].id);
  return list;
}

Json to_answer(const PiperInstance& instance, const std::vector<PiperStage>& stages) {
  JsonArray list;
  for (const PiperStage& stage : stages) {
    Json json;
    json["nodes"] = ids(instance, stage.nodes);
    json["dp"] = stage.dp;
    json["tp"] = stage.tp;
    json["recompute_nodes"] = ids(instance, stage.recompute_nodes);
    list.push_back(std::move(json));
  }
  Json answer;
  answer["stages"] = std::move(list);
  return answer;
}

}  // namespace

Result<PiperInstance> parse_piper(const Json& instance, const Json& model) { return Reader().read(instance, model); }

const PiperOption* find_option(const PiperNode& node, std::int64_t tp, bool recompute) {
  for (const PiperOption& option : node.options) {
    if (option.tp == tp && option.recompute == recompute) return &option;
  }
  return nullptr;
}

Result<double> estimate_piper(const PiperInstance& instance, const std::vector<PiperStage>& stages) {
  std::vector<Error> problems;
  const std::vector<int> stage_of = place(instance, stages, problems);
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the plan breaks Piper's rules", std::move(problems));
  std::int64_t rest = 0;
  for (const PiperStage& stage : stages) rest += stage.dp;
  double worst = 0;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const std::int64_t d = stages[i].dp, stashes = (rest + d - 1) / d;
    rest -= d;
    worst = std::max(
        worst, stage_load(instance, stages[i], static_cast<int>(i), static_cast<double>(stashes), stage_of, problems));
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the plan's stages cannot run", std::move(problems));
  return worst;
}

Result<ContestAnswer> solve_piper(const PiperInstance& instance, const ContestOptions&) {
  COX_TRY(const PiperPlan plan, search_piper(instance));
  ContestAnswer answer{to_answer(instance, plan.stages), plan.score, plan.num_labels};
  answer.unit = "seconds per micro-batch of the slowest stage";
  answer.step_seconds = plan.score * static_cast<double>(instance.micro_batches);
  if (plan.all_cuts) answer.lower_bound_step_seconds = answer.step_seconds * (1 - kPiperTolerance);
  answer.notes = {"a step is " + std::to_string(instance.micro_batches) +
                  " micro-batches at that pace; Piper counts neither filling nor emptying of the pipeline"};
  if (!plan.all_cuts)
    answer.notes.emplace_back("the graph has too many cuts to try all: those along one order of its nodes were tried");
  return answer;
}

Result<ContestSolver> load_piper(const Json& instance, const std::filesystem::path& file) {
  if (is_piper_file(instance)) {
    COX_TRY(const PiperDocuments documents, convert_piper_file(instance));
    COX_TRY(PiperInstance parsed, parse_piper(documents.instance, documents.model));
    return ContestSolver(
        [parsed = std::move(parsed)](const ContestOptions& options) { return solve_piper(parsed, options); });
  }
  const Json& name = instance["model_file"];
  if (!name.is_string())
    return problem_at("instance.model_file", "wrong value", "the path of the model, relative to the instance",
                      to_text(name));
  COX_TRY(const std::string text, read_file(file.parent_path() / name.string()));
  COX_TRY(const Json model, parse_json(text));
  COX_TRY(PiperInstance parsed, parse_piper(instance, model));
  return ContestSolver(
      [parsed = std::move(parsed)](const ContestOptions& options) { return solve_piper(parsed, options); });
}

}  // namespace coxswain::planner
