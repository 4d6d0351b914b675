#include "planner/families.h"

#include <algorithm>
#include <set>

#include "planner/conflicts.h"

namespace coxswain::planner {
namespace {

using plan::ScheduleKind;

std::vector<int> range(int first, int last) {
  std::vector<int> values;
  for (int value = first; value <= last; ++value) values.push_back(value);
  return values;
}

/// Least and most of a number over the stages.
struct Span {
  int least = 0, most = 0;
};
template <class Value>
Span span_of(const plan::Plan& plan, Value value) {
  Span span{static_cast<int>(value(plan.stages.front())), 0};
  for (const plan::Stage& stage : plan.stages) {
    span.least = std::min(span.least, static_cast<int>(value(stage)));
    span.most = std::max(span.most, static_cast<int>(value(stage)));
  }
  return span;
}

class Families {
 public:
  Families(const Request& request, const plan::Plan& chosen) : request_(request), chosen_(chosen) {
    base_ = request;
    base_.top_k = 1;
    base_.explain_failure = false;
    base_.rough = true;
  }

  std::vector<Family> list() {
    const auto tensor = span_of(chosen_, [](const plan::Stage& stage) { return stage.replicas.front().tensor; });
    const auto data = span_of(chosen_, [](const plan::Stage& stage) { return stage.replicas.size(); });
    const auto zero = span_of(chosen_, [](const plan::Stage& stage) { return stage.zero_stage; });
    const int devices =
        static_cast<int>(std::min<std::int64_t>(cluster::num_devices(request_.cost->resources()), 4096));
    const int stages = static_cast<int>(chosen_.stages.size());

    if (tensor.most > 1) add("no tensor parallel", "tensor", &Constraints::tensor, {1});
    if (tensor.least == 1 && tensor.most == 1) {
      if (const std::vector<int> degrees = tensor_degrees(); !degrees.empty())
        add("tensor parallel", "tensor", &Constraints::tensor, degrees);
    }
    if (stages > 1) add("no pipeline parallel", "pipeline", &Constraints::pipeline, {1});
    const int most_stages = std::min(devices, request_.cost->facts().num_blocks());
    if (stages == 1 && most_stages > 1)
      add("pipeline parallel", "pipeline", &Constraints::pipeline, range(2, most_stages));
    if (data.most > 1) add("no data parallel", "data", &Constraints::data, {1});
    if (data.most == 1 && devices > 1) add("data parallel", "data", &Constraints::data, range(2, devices));
    for (int z = 0; z <= request_.capabilities.max_zero_stage; ++z) {
      if (z == zero.least && z == zero.most) continue;
      if (z > 0 && devices == 1) continue;
      add("ZeRO " + std::to_string(z), "zero", &Constraints::zero, {z});
    }
    add("context parallel", "context", &Constraints::context, {2, 4, 8});
    const auto& parameters = request_.cost->facts().parameters();
    if (std::any_of(parameters.begin(), parameters.end(), [](const auto& one) { return one.experts > 0; }))
      add("expert parallel", "expert", &Constraints::expert, {2, 4, 8});
    add_recompute();
    add_word("offload of the optimizer", "offload", &Constraints::offload, "optimizer");
    add_word("offload of activations", "offload", &Constraints::offload, "activations");
    if (most_stages > 1) add_schedules(most_stages);
    add_micros();
    add_devices();
    return std::move(families_);
  }

 private:
  template <class Value>
  void add(const std::string& name, const std::string& key, std::vector<Value> Constraints::* list,
           std::vector<Value> values) {
    Family family{name, base_, "", key};
    std::vector<Value>& pinned = family.request.constraints.*list;
    if (!pinned.empty()) {
      std::erase_if(values,
                    [&](Value value) { return std::find(pinned.begin(), pinned.end(), value) == pinned.end(); });
      if (values.empty()) family.excluded_by = pinned_text(key);
    }
    pinned = std::move(values);
    families_.push_back(std::move(family));
  }

  void add_word(const std::string& name, const std::string& key, std::optional<std::string> Constraints::* word,
                const std::string& value) {
    Family family{name, base_, "", key};
    if (const auto& pinned = base_.constraints.*word; pinned && *pinned != value) family.excluded_by = pinned_text(key);
    family.request.constraints.*word = value;
    families_.push_back(std::move(family));
  }

  [[nodiscard]] std::string pinned_text(const std::string& key) const {
    for (const UserConstraint& one : list_constraints(request_)) {
      if (one.key == key) return one.text;
    }
    return key;
  }

  /// That some node holds and the heads divide by.
  [[nodiscard]] std::vector<int> tensor_degrees() const {
    std::int64_t widest = 1;
    for (const cluster::NodeClass& node : request_.cost->resources().node_classes) {
      for (const cluster::DeviceCount& entry : node.devices) widest = std::max(widest, entry.count);
    }
    std::vector<int> degrees;
    for (int degree = 2; degree <= std::min<std::int64_t>(widest, request_.capabilities.max_tensor); degree *= 2) {
      if (request_.cost->facts().splits_over(degree)) degrees.push_back(degree);
    }
    return degrees;
  }

  void add_recompute() {
    const std::string chosen = constraint_of(chosen_, "recompute");
    if (chosen != "recompute=none") add_word("no recompute", "recompute", &Constraints::recompute, "none");
    if (chosen != "recompute=full") add_word("recompute of every block", "recompute", &Constraints::recompute, "full");
  }

  void add_schedules(int most_stages) {
    for (const ScheduleKind kind :
         {ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward, ScheduleKind::Interleaved,
          ScheduleKind::ZeroBubbleH1, ScheduleKind::ZeroBubbleH2, ScheduleKind::ZeroBubbleV}) {
      if (chosen_.stages.size() > 1 && kind == chosen_.schedule) continue;
      add("schedule " + std::string(plan::to_text(kind)), "schedule", &Constraints::schedule, {kind});
      std::vector<int>& stages = families_.back().request.constraints.pipeline;  // one stage has no schedule
      if (stages.empty()) stages = range(2, most_stages);
      std::erase(stages, 1);
      if (stages.empty()) families_.back().excluded_by = pinned_text("pipeline");
    }
  }

  void add_micros() {
    std::int64_t less = 0, more = 0;
    for (std::int64_t micro = 1; micro <= request_.global_batch; ++micro) {
      if (request_.global_batch % micro != 0) continue;
      if (micro < chosen_.batch.micro) less = micro;
      if (micro > chosen_.batch.micro && more == 0) more = micro;
    }
    for (const std::int64_t micro : {less, more}) {
      if (micro > 0) add("micro-batch of " + std::to_string(micro), "micro", &Constraints::micro, {micro});
    }
  }

  void add_devices() {
    const cluster::ResourceGraph& graph = request_.cost->resources();
    std::vector<std::int64_t> used(graph.device_classes.size(), 0);
    std::int64_t all_used = 0;
    std::set<int> classes;
    for (const plan::Stage& stage : chosen_.stages) {
      for (const plan::Replica& replica : stage.replicas) {
        const int device_class = replica.devices.front().device_class;
        used[static_cast<std::size_t>(device_class)] += static_cast<std::int64_t>(replica.devices.size());
        all_used += static_cast<std::int64_t>(replica.devices.size());
        classes.insert(device_class);
      }
    }
    if (all_used < cluster::num_devices(graph)) {
      Family all{"every device at work", base_, "", ""};
      all.request.use_all_devices = true;
      families_.push_back(std::move(all));
    }
    for (const int device_class : classes) {
      if (classes.size() < 2) break;
      Family without{"without " + graph.device_classes[static_cast<std::size_t>(device_class)].name, base_, "", ""};
      auto& limits = without.request.device_limits;
      for (std::size_t c = 0; limits.size() < used.size(); ++c)
        limits.push_back(cluster::num_devices(graph, static_cast<int>(c)));
      limits[static_cast<std::size_t>(device_class)] = 0;
      families_.push_back(std::move(without));
    }
  }

  const Request& request_;
  const plan::Plan& chosen_;
  Request base_;
  std::vector<Family> families_;
};

template <class Values, class Value>
bool all_stages(const plan::Plan& plan, const Values& allowed, Value value) {
  return std::all_of(plan.stages.begin(), plan.stages.end(), [&](const plan::Stage& stage) {
    return std::find(allowed.begin(), allowed.end(), value(stage)) != allowed.end();
  });
}

}  // namespace

std::vector<Family> other_families(const Request& request, const plan::Plan& chosen) {
  return Families(request, chosen).list();
}

bool belongs(const Family& family, const plan::Plan& plan) {
  const Constraints& c = family.request.constraints;
  const auto has = [](const auto& allowed, auto value) {
    return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
  };
  if (family.key == "tensor")
    return all_stages(plan, c.tensor, [](const plan::Stage& stage) { return stage.replicas.front().tensor; });
  if (family.key == "data")
    return all_stages(plan, c.data, [](const plan::Stage& stage) { return static_cast<int>(stage.replicas.size()); });
  if (family.key == "context")
    return all_stages(plan, c.context, [](const plan::Stage& stage) { return stage.replicas.front().context; });
  if (family.key == "expert")
    return all_stages(plan, c.expert, [](const plan::Stage& stage) { return stage.replicas.front().expert; });
  if (family.key == "zero") return all_stages(plan, c.zero, [](const plan::Stage& stage) { return stage.zero_stage; });
  if (family.key == "pipeline") return has(c.pipeline, static_cast<int>(plan.stages.size()));
  if (family.key == "micro") return has(c.micro, plan.batch.micro);
  if (family.key == "schedule") return plan.stages.size() > 1 && has(c.schedule, plan.schedule);
  if (family.key == "recompute") return constraint_of(plan, "recompute") == "recompute=" + c.recompute.value_or("");
  return false;
}

}  // namespace coxswain::planner
