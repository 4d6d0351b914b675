// The production cost model: profile where there is one, roofline elsewhere, each distinct block costed once.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>

#include "cost_model/collective_time.h"
#include "cost_model/cost_model.h"
#include "cost_model/memory.h"
#include "cost_model/profile_times.h"
#include "cost_model/roofline.h"

namespace coxswain::cost_model {
namespace {

class ProductionModel final : public CostModel {
 public:
  ProductionModel(const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                  const cluster::Profile* profile, std::shared_ptr<const ModelFacts> facts)
      : CostModel(std::move(facts)), graph_(graph), resources_(resources) {
    if (profile == nullptr) return;
    for (const cluster::BlockTiming& timing : profile->blocks)
      timings_[{timing.signature, timing.device_class}].push_back(&timing);
    for (auto& [key, points] : timings_)
      std::sort(points.begin(), points.end(), [](const auto* a, const auto* b) { return a->samples < b->samples; });
    for (const cluster::Profile::DeviceRates& rates : profile->devices) rates_[rates.device_class] = &rates;
  }

  BlockTime estimate_block(const BlockWork& work) const override {
    const Key key{
        facts().signature_of(work.block),
        work.device_class,
        work.samples,
        work.precision,
        std::array<std::int64_t, 5>{work.tensor, work.context, work.expert, work.expert_samples, work.expert_index},
        work.block + 1 == graph_.num_blocks()};
    {
      const std::lock_guard lock(mutex_);
      const auto found = times_.find(key);
      if (found != times_.end()) return found->second;
    }
    const BlockTime time = compute(work);
    const std::lock_guard lock(mutex_);
    return times_.emplace(key, time).first->second;
  }

  Seconds estimate_transfer(Bytes bytes, plan::DeviceId from, plan::DeviceId to) const override {
    return estimate_transfer_time(resources_, bytes, from, to);
  }

  Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                              const std::vector<plan::DeviceId>& devices) const override {
    return estimate_collective_time(resources_, kind, payload, devices);
  }

  Seconds estimate_shaped_collective(collective::CollectiveKind kind, Bytes payload,
                                     const GroupShape& shape) const override {
    return estimate_collective_time(resources_, kind, payload, shape);
  }

  Seconds estimate_optimizer(std::int64_t parameters, int device_class) const override {
    if (const auto* rates = rates_of(device_class)) {
      return (rates->optimizer_per_parameter + rates->norm_per_parameter) * static_cast<double>(parameters);
    }
    return estimate_optimizer_roofline(device(device_class), parameters);
  }

  Seconds estimate_step_overhead(int device_class) const override {
    const auto* rates = rates_of(device_class);
    return rates != nullptr ? rates->step_overhead : Seconds(0);
  }

  Seconds estimate_action_overhead(int device_class) const override {
    const auto* rates = rates_of(device_class);
    return rates != nullptr ? rates->action_overhead : device(device_class).launch_overhead.value;
  }

  Bytes base_memory(int device_class) const override {
    const auto* rates = rates_of(device_class);
    return rates != nullptr ? rates->base_memory : Bytes(0);
  }

  bool costs_by_signature() const override { return true; }

  Bytes communicator_memory(int device_class, const cluster::LinkClass& link) const override {
    return device(device_class).kind == cluster::DeviceKind::Cuda ? communicator_buffers(link) : Bytes(0);
  }

  const model::ModelGraph& model() const override { return graph_; }
  const cluster::ResourceGraph& resources() const override { return resources_; }

 private:
  /// C32: from the profile, where it has the block.
  double expert_imbalance(const BlockWork& work) const {
    const int count = facts().experts(work.block).count;
    if (work.expert == 1 || work.expert > count) return 1;
    const auto found =
        timings_.find({graph_.blocks[static_cast<std::size_t>(work.block)].signature, device(work.device_class).name});
    if (found == timings_.end()) return kExpertImbalance;
    const std::int64_t all = work.expert_samples > 0 ? work.expert_samples : work.expert * work.samples;
    const double load_cv = expert_load_cv(found->second, all);
    return load_cv < 0 ? kExpertImbalance : expected_imbalance(count, work.expert, load_cv);
  }

  BlockTime compute(const BlockWork& work) const {
    if (work.samples == 0) return {};
    const std::string& signature = graph_.blocks[static_cast<std::size_t>(work.block)].signature;
    const auto found = timings_.find({signature, device(work.device_class).name});
    const cluster::DeviceClass& here = device(work.device_class);
    if (found == timings_.end()) return estimate_block_roofline(facts(), here, work, expert_imbalance(work));
    return share_of_measured(found->second, work);
  }

  /// C12, C54: what a mesh does not make less of a measured block: what does not grow with its samples, beyond what the
  /// roofline has of that (weights that are read, launches). Every device has all of the block's operators to begin.
  BlockTime kept_whole(const std::vector<const cluster::BlockTiming*>& points, const BlockTime& measured,
                       BlockWork whole) const {
    BlockTime kept = fixed_part(points);
    const auto known_at = [&](std::int64_t samples) {
      whole.samples = samples;
      return estimate_block_roofline(facts(), device(whole.device_class), whole);
    };
    const BlockTime one = known_at(1), two = known_at(2);
    const auto beyond = [](Seconds fixed, Seconds one, Seconds two, Seconds all) {
      const double known = std::max(0.0, 2 * one.value - two.value);
      return Seconds(std::clamp(fixed.value - known, 0.0, all.value));
    };
    kept.forward = beyond(kept.forward, one.forward, two.forward, measured.forward);
    kept.backward = beyond(kept.backward, one.backward, two.backward, measured.backward);
    return kept;
  }

  /// C29, C32, C54: the measured block, scaled as the roofline scales; its parts are the roofline's shares of it.
  /// Memory is what the operators' rules say (C12).
  BlockTime share_of_measured(const std::vector<const cluster::BlockTiming*>& points, const BlockWork& work) const {
    const BlockTime measured = interpolate_block(points, work.samples);
    BlockWork whole = work;
    whole.tensor = whole.context = whole.expert = 1;
    whole.expert_samples = 0;
    whole.expert_index = 0;
    const cluster::DeviceClass& here = device(work.device_class);
    const BlockTime rules = estimate_block_roofline(facts(), here, work, expert_imbalance(work));
    BlockTime time = rules;
    time.measured = true;
    time.forward = measured.forward;
    time.backward = measured.backward;
    if (work.tensor * work.context * work.expert > 1) {
      const BlockTime from = estimate_block_roofline(facts(), here, whole);
      // Of experts the products of few rows make most of what does not grow, and an axis has fewer of them.
      const BlockTime kept = work.expert == 1 ? kept_whole(points, measured, whole) : BlockTime{};
      const auto part = [](Seconds all, Seconds kept, Seconds of, Seconds from) {
        return from.value > 0 ? kept + (all - kept) * (of / from) : all;
      };
      time.forward = part(measured.forward, kept.forward, rules.forward, from.forward);
      time.backward = part(measured.backward, kept.backward, rules.backward, from.backward);
    }
    const auto ratio = [](Seconds part, Seconds all) { return all.value > 0 ? part / all : 0.0; };
    time.attention_forward = time.forward * ratio(rules.attention_forward, rules.forward);
    time.attention_backward = time.backward * ratio(rules.attention_backward, rules.backward);
    // C28: a profile has the backward in one; the roofline says how it splits.
    time.weight = time.backward * ratio(rules.weight, rules.backward);
    time.replayed = time.forward * ratio(rules.replayed, rules.forward);
    return time;
  }

  const cluster::DeviceClass& device(int device_class) const {
    return resources_.device_classes[static_cast<std::size_t>(device_class)];
  }

  const cluster::Profile::DeviceRates* rates_of(int device_class) const {
    const auto found = rates_.find(device(device_class).name);
    return found == rates_.end() ? nullptr : found->second;
  }

  const model::ModelGraph& graph_;
  const cluster::ResourceGraph& resources_;
  std::map<std::pair<std::string, std::string>, std::vector<const cluster::BlockTiming*>>
      timings_;  // by (signature, device class)
  std::map<std::string, const cluster::Profile::DeviceRates*> rates_;
  mutable std::mutex mutex_;
  using Key = std::tuple<int, int, std::int64_t, plan::Precision, std::array<std::int64_t, 5>, bool>;
  mutable std::map<Key, BlockTime> times_;
};

}  // namespace

const std::shared_ptr<const ModelFacts>& CostModel::shared_facts() const {
  std::call_once(facts_once_, [this] {
    if (!facts_) facts_ = std::make_shared<const ModelFacts>(model());
  });
  return facts_;
}

std::unique_ptr<CostModel> make_cost_model(const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                                           const cluster::Profile* profile) {
  return std::make_unique<ProductionModel>(graph, resources, profile, nullptr);
}

std::unique_ptr<CostModel> make_cost_model(const std::shared_ptr<const KnownModel>& model,
                                           const cluster::ResourceGraph& resources, const cluster::Profile* profile) {
  return std::make_unique<ProductionModel>(model->graph, resources, profile,
                                           std::shared_ptr<const ModelFacts>(model, &model->facts));
}

}  // namespace coxswain::cost_model
