#include "cost_model/split_roles.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

namespace coxswain::cost_model {
namespace {

/// Samples that two replicas of neighbouring stages exchange.
struct Edge {
  std::size_t peer = 0;
  int direction = 0;  // to the next stage, or the one before
  std::int64_t samples = 0;
};

/// All replicas, counted by stage; who each exchanges with.
struct ReplicaGraph {
  std::vector<std::size_t> first;  // of each stage
  std::vector<std::vector<Edge>> edges;

  explicit ReplicaGraph(const plan::Plan& plan) {
    std::size_t count = 0;
    for (const plan::Stage& stage : plan.stages) {
      first.push_back(count);
      count += stage.replicas.size();
    }
    edges.resize(count);
    for (std::size_t s = 0; s + 1 < plan.stages.size(); ++s) connect(plan, s);
  }

 private:
  void connect(const plan::Plan& plan, std::size_t s) {
    const auto &here = plan.stages[s].replicas, &next = plan.stages[s + 1].replicas;
    std::int64_t begin = 0, other = 0;  // first samples of replicas i and j
    for (std::size_t i = 0, j = 0; i < here.size() && j < next.size();) {
      const std::int64_t end = begin + here[i].samples, other_end = other + next[j].samples;
      const std::int64_t common = std::min(end, other_end) - std::max(begin, other);
      if (common > 0) {
        edges[first[s] + i].push_back({first[s + 1] + j, 0, common});
        edges[first[s + 1] + j].push_back({first[s] + i, 1, common});
      }
      if (end <= other_end) {
        begin = end;
        ++i;
      }
      if (other_end <= end) {
        other = other_end;
        ++j;
      }
    }
  }
};

using Signature = std::pair<int, std::vector<std::tuple<int, int, std::int64_t>>>;

/// One step finer: replicas stay together where their edges go to the same roles.
int refine(const ReplicaGraph& graph, std::vector<int>& role_of) {
  std::map<Signature, int> roles;
  std::vector<int> finer(role_of.size());
  for (std::size_t r = 0; r < role_of.size(); ++r) {
    Signature signature{role_of[r], {}};
    for (const Edge& edge : graph.edges[r])
      signature.second.emplace_back(edge.direction, role_of[edge.peer], edge.samples);
    std::sort(signature.second.begin(), signature.second.end());
    finer[r] = roles.try_emplace(std::move(signature), static_cast<int>(roles.size())).first->second;
  }
  role_of = std::move(finer);
  return static_cast<int>(roles.size());
}

}  // namespace

SplitRoles split_roles(const plan::Plan& plan) {
  SplitRoles split{plan, {}, {}};
  const auto keep = [&] {
    for (int role = 0; role < static_cast<int>(plan.roles.size()); ++role) {
      split.of.push_back(role);
      split.first.push_back(role);
    }
    return split;
  };
  // Where every stage is of one kind, so are the neighbours.
  if (plan.roles.size() == plan.stages.size()) return keep();
  const ReplicaGraph graph(plan);
  if (graph.edges.size() > kMaxSplitReplicas) return keep();

  std::vector<int> given(graph.edges.size(), 0);
  for (std::size_t role = 0; role < plan.roles.size(); ++role) {
    for (const int replica : plan.roles[role].replicas)
      given[graph.first[static_cast<std::size_t>(plan.roles[role].stage)] + static_cast<std::size_t>(replica)] =
          static_cast<int>(role);
  }
  std::vector<int> role_of = given;
  int count = static_cast<int>(plan.roles.size());
  for (int finer = refine(graph, role_of); finer > count; finer = refine(graph, role_of)) count = finer;
  if (count == static_cast<int>(plan.roles.size())) return keep();

  split.plan.roles.clear();
  split.first.assign(plan.roles.size(), -1);
  std::map<int, int> index;  // of the new roles, in order of (stage, first replica)
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    for (std::size_t r = 0; r < plan.stages[s].replicas.size(); ++r) {
      const std::size_t at = graph.first[s] + r;
      const auto [found, fresh] = index.try_emplace(role_of[at], static_cast<int>(split.plan.roles.size()));
      if (fresh) {
        plan::Role role = plan.roles[static_cast<std::size_t>(given[at])];
        role.replicas.clear();
        split.plan.roles.push_back(std::move(role));
        split.of.push_back(given[at]);
        int& first = split.first[static_cast<std::size_t>(given[at])];
        if (first < 0) first = found->second;
      }
      split.plan.roles[static_cast<std::size_t>(found->second)].replicas.push_back(static_cast<int>(r));
    }
  }
  return split;
}

}  // namespace coxswain::cost_model
