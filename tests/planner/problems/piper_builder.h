#pragma once
// Small Piper instances for tests, built through the parser from the documents that a user would write.
#include <initializer_list>
#include <utility>
#include <vector>

#include "common/ensure.h"
#include "planner/problems/piper.h"
#include "planner/problems/piper_sets.h"

namespace coxswain::planner {

struct PiperBuilder {
  struct Numbers {
    double seconds = 0, parameters = 0, stash = 0, fixed = 0;
  };
  std::int64_t devices = 1, micro_batches = 1;
  double memory = 1e9, bandwidth = 1;
  JsonArray nodes, edges;
  double sync_bytes = 0;  // of every option with tp over 1

  int node() {
    Json json;
    json["id"] = 10 * static_cast<std::int64_t>(nodes.size());
    json["options"] = JsonArray{};
    nodes.push_back(std::move(json));
    return static_cast<int>(nodes.size()) - 1;
  }
  /// Adds after all edges are known, since an option lists its node's neighbours.
  void option(int v, std::int64_t tp, bool recompute, const Numbers& numbers) {
    Json& json = nodes[static_cast<std::size_t>(v)];
    Json option;
    option["tp"] = tp;
    option["variant"] = recompute ? "activation recomp" : "vanilla";
    option["seconds"] = numbers.seconds;
    option["parameter_bytes"] = numbers.parameters;
    option["memory_per_stash"] = numbers.stash;
    option["memory_fixed"] = numbers.fixed;
    JsonArray in, out;
    for (const Json& edge : edges) {
      const double bytes = tp > 1 ? sync_bytes : 0;
      if (edge.array()[1] == json["id"]) in.push_back(JsonArray{edge.array()[0], bytes});
      if (edge.array()[0] == json["id"]) out.push_back(JsonArray{edge.array()[1], bytes});
    }
    option["sync_in"] = std::move(in);
    option["sync_out"] = std::move(out);
    json["options"].array().push_back(std::move(option));
  }
  void edge(int from, int to, double bytes) { edges.push_back(JsonArray{10 * from, 10 * to, bytes}); }

  [[nodiscard]] Json instance() const {
    Json json;
    json["model_file"] = "model.json";
    json["devices"] = devices;
    json["microbatches"] = micro_batches;
    json["memory_bytes_per_device"] = memory;
    json["bandwidth_bytes_per_s"] = bandwidth;
    return json;
  }
  [[nodiscard]] Json model() const {
    Json json;
    json["nodes"] = nodes;
    json["edges"] = edges;
    return json;
  }
  [[nodiscard]] PiperInstance build() const {
    auto parsed = parse_piper(instance(), model());
    COX_ENSURE(parsed.has_value(), to_text(parsed.error()));
    return *parsed;
  }
};

/// Requires: a small graph.
inline PiperSets all_sets(const PiperInstance& instance) {
  auto sets = PiperSets::all(instance, 100);
  COX_ENSURE(sets.has_value());
  return std::move(*sets);
}

/// Nodes in a row, tp 1, nothing but seconds; edges of `bytes`.
inline PiperBuilder piper_chain(std::initializer_list<double> seconds, double bytes) {
  PiperBuilder builder;
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    const int v = builder.node();
    if (v > 0) builder.edge(v - 1, v, bytes);
  }
  int v = 0;
  for (const double each : seconds) builder.option(v++, 1, false, {.seconds = each});
  return builder;
}

}  // namespace coxswain::planner
