#include "planner/compare.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "planner/words.h"

namespace coxswain::planner {
namespace {

/// The slowest link of an axis of a plan, by name; empty where the axis is not used.
struct AxisLinks {
  std::string tensor, data, pipeline;
};

class SlowestLink {
 public:
  explicit SlowestLink(const cluster::ResourceGraph& graph) : graph_(graph) {}
  void add(plan::DeviceId a, plan::DeviceId b) {
    if (a == b) return;
    const cluster::LinkClass& link = cluster::link_between(graph_, a, b);
    if (slowest_ == nullptr || link.bandwidth.value < slowest_->bandwidth.value) slowest_ = &link;
  }
  [[nodiscard]] std::string name() const { return slowest_ == nullptr ? "" : slowest_->name; }

 private:
  const cluster::ResourceGraph& graph_;
  const cluster::LinkClass* slowest_ = nullptr;
};

AxisLinks links_of(const cluster::ResourceGraph& graph, const plan::Plan& plan) {
  SlowestLink tensor(graph), data(graph), pipeline(graph);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const auto& replicas = plan.stages[s].replicas;
    for (std::size_t r = 0; r < replicas.size(); ++r) {
      for (std::size_t d = 1; d < replicas[r].devices.size(); ++d)
        tensor.add(replicas[r].devices[d - 1], replicas[r].devices[d]);
      if (r > 0) data.add(replicas[r - 1].devices.front(), replicas[r].devices.front());
    }
    if (replicas.size() > 1) data.add(replicas.back().devices.front(), replicas.front().devices.front());
    if (s == 0) continue;
    const auto& before = plan.stages[s - 1].replicas;
    for (std::size_t r = 0; r < std::max(before.size(), replicas.size()); ++r)
      pipeline.add(before[r * before.size() / std::max(before.size(), replicas.size())].devices.front(),
                   replicas[r * replicas.size() / std::max(before.size(), replicas.size())].devices.front());
  }
  return {tensor.name(), data.name(), pipeline.name()};
}

std::string link_text(const std::string& verb, const std::string& link) {
  if (link.empty()) return "does not " + verb;
  const std::size_t space = verb.find(' ');  // "reduce gradients": "reduces gradients"
  return verb.substr(0, space) + "s" + (space == std::string::npos ? "" : verb.substr(space)) + " over " + link;
}

std::size_t recomputed(const plan::Plan& plan) {
  std::size_t count = 0;
  for (const plan::Stage& stage : plan.stages)
    count += stage.recompute.size() - static_cast<std::size_t>(std::count(
                                          stage.recompute.begin(), stage.recompute.end(), plan::Recompute::None));
  return count;
}

std::string zero_text(const plan::Plan& plan) {
  int least = 3, most = 0;
  for (const plan::Stage& stage : plan.stages) {
    least = std::min(least, stage.zero_stage);
    most = std::max(most, stage.zero_stage);
  }
  return least == most ? "ZeRO " + std::to_string(most)
                       : "ZeRO " + std::to_string(least) + " to " + std::to_string(most);
}

/// "2 x fast, 1 x slow".
std::string devices_text(const cluster::ResourceGraph& graph, const plan::Plan& plan) {
  std::map<int, std::int64_t> used;
  for (const plan::Stage& stage : plan.stages) {
    for (const plan::Replica& replica : stage.replicas) {
      for (const plan::DeviceId device : replica.devices) ++used[device.device_class];
    }
  }
  std::string text;
  for (const auto& [device_class, count] : used)
    text += (text.empty() ? "" : " and ") + std::to_string(count) + " x " +
            graph.device_classes[static_cast<std::size_t>(device_class)].name;
  return text;
}

std::string cuts_text(const plan::Plan& plan) {
  std::string text;
  for (const plan::Stage& stage : plan.stages)
    text += (text.empty() ? "" : " + ") + std::to_string(stage.end_block - stage.first_block);
  return text + " blocks";
}

std::string samples_text(const plan::Plan& plan) {
  std::string text;
  const auto& replicas = plan.stages.front().replicas;
  for (std::size_t r = 0; r < replicas.size() && r < 8; ++r)
    text += (text.empty() ? "" : "+") + std::to_string(replicas[r].samples);
  return text + (replicas.size() > 8 ? "+..." : "") + " samples";
}

std::string batch_text(const plan::Plan& plan) {
  return std::to_string(plan.batch.count) + (plan.batch.count == 1 ? " micro-batch of " : " micro-batches of ") +
         std::to_string(plan.batch.micro);
}

struct Sentence {
  std::string text;
  std::string parts;  // of the step that it can explain, comma-separated
};

}  // namespace

std::vector<std::pair<std::string, Seconds>> parts_of(const plan::Estimate& e) {
  return {{"forward", e.forward},     {"backward", e.backward},
          {"recompute", e.recompute}, {"communication exposed", e.communication_exposed},
          {"bubble", e.bubble},       {"optimizer", e.optimizer}};
}

std::vector<PartDifference> part_differences(const plan::Estimate& ours, const plan::Estimate& other) {
  const auto mine = parts_of(ours), theirs = parts_of(other);
  std::vector<PartDifference> differences;
  for (std::size_t i = 0; i < mine.size(); ++i)
    differences.push_back({mine[i].first, mine[i].second, theirs[i].second});
  std::stable_sort(differences.begin(), differences.end(), [](const PartDifference& a, const PartDifference& b) {
    return std::abs((a.other - a.ours).value) > std::abs((b.other - b.ours).value);
  });
  return differences;
}

std::string main_difference(const std::vector<PartDifference>& differences, bool other_is_slower) {
  for (const PartDifference& one : differences) {
    const double change = (one.other - one.ours).value;
    if (change == 0 || (change > 0) != other_is_slower) continue;
    return "mostly by " + one.part + " (" + seconds_text(one.ours) + " -> " + seconds_text(one.other) + ")";
  }
  return "";
}

std::vector<std::string> layout_differences(const cost_model::CostModel& cost, const plan::Plan& ours,
                                            const plan::Plan& other, const std::string& part) {
  const cluster::ResourceGraph& graph = cost.resources();
  std::vector<Sentence> sentences;
  const auto add = [&](const std::string& mine, const std::string& theirs, const std::string& parts) {
    if (mine != theirs) sentences.push_back({"it " + theirs + " where this one " + mine, parts});
  };
  const auto counted = [](auto count, const char* one, const char* many) {
    return std::to_string(count) + " " + (count == 1 ? one : many);
  };
  const AxisLinks mine = links_of(graph, ours), theirs = links_of(graph, other);
  add("uses " + devices_text(graph, ours), "uses " + devices_text(graph, other), "forward,backward,optimizer");
  add("has " + counted(ours.stages.size(), "stage", "stages"), "has " + counted(other.stages.size(), "stage", "stages"),
      "bubble,forward,backward,optimizer");
  add(link_text("pipeline", mine.pipeline), link_text("pipeline", theirs.pipeline), "communication exposed,bubble");
  add(link_text("shard operators", mine.tensor), link_text("shard operators", theirs.tensor),
      "communication exposed,forward,backward");
  add(link_text("reduce gradients", mine.data), link_text("reduce gradients", theirs.data),
      "communication exposed,optimizer");
  add("runs under " + zero_text(ours), "runs under " + zero_text(other),
      "communication exposed,optimizer,forward,backward");
  const auto offload = [](const plan::Plan& plan) {
    std::string text;
    for (const plan::Stage& stage : plan.stages) {
      const std::string one(plan::to_text(stage.offload));
      if (one != "none" && text.find(one) == std::string::npos) text += (text.empty() ? "offloads " : " and ") + one;
    }
    return text.empty() ? std::string("offloads nothing") : text;
  };
  add(offload(ours), offload(other), "communication exposed,optimizer,recompute");
  const auto context = [](const plan::Plan& plan) {
    const int degree = plan.stages.front().replicas.front().context;
    return degree == 1 ? std::string("keeps sequences whole")
                       : "splits sequences over " + std::to_string(degree) + " devices";
  };
  add(context(ours), context(other), "communication exposed,forward,backward");
  add("recomputes " + counted(recomputed(ours), "block", "blocks"),
      "recomputes " + counted(recomputed(other), "block", "blocks"), "recompute");
  add("runs " + batch_text(ours), "runs " + batch_text(other), "bubble,communication exposed,forward,backward");
  if (ours.stages.size() > 1 && other.stages.size() > 1) {
    add("runs " + std::string(plan::to_text(ours.schedule)), "runs " + std::string(plan::to_text(other.schedule)),
        "bubble,recompute");
    add("cuts into " + cuts_text(ours), "cuts into " + cuts_text(other), "bubble,forward,backward");
  }
  add("gives its first replicas " + samples_text(ours), "gives its first replicas " + samples_text(other),
      "forward,backward,bubble");
  std::stable_partition(sentences.begin(), sentences.end(), [&](const Sentence& sentence) {
    return ("," + sentence.parts + ",").find("," + part + ",") != std::string::npos;
  });
  std::vector<std::string> result;
  for (Sentence& sentence : sentences) result.push_back(std::move(sentence.text));
  return result;
}

}  // namespace coxswain::planner
