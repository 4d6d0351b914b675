#pragma once
// The same model on changed hardware: what would another or a faster device, more memory or a faster link buy. Classes
// must be those of the base. Used by the report of find_plan and by explain. Threads: as the base.
#include <memory>
#include <utility>

#include "cost_model/cost_model.h"

namespace coxswain::planner {

/// Compute as in `base`, links and counts as in `resources`.
class ChangedCost final : public cost_model::CostModel {
 public:
  /// `speed`: how many times faster each class computes; empty: as it is.
  ChangedCost(const cost_model::CostModel& base, cluster::ResourceGraph resources, std::vector<double> speed = {})
      : CostModel(base.shared_facts()),
        base_(base),
        resources_(std::move(resources)),
        speed_(std::move(speed)),
        links_(cost_model::make_cost_model(base.model(), resources_, nullptr)) {}
  cost_model::BlockTime estimate_block(const cost_model::BlockWork& work) const override {
    cost_model::BlockTime time = base_.estimate_block(work);
    for (Seconds* part : {&time.forward, &time.backward, &time.weight, &time.attention_forward,
                          &time.attention_backward, &time.replayed})
      *part = faster(*part, work.device_class);
    return time;
  }
  Seconds estimate_transfer(Bytes bytes, plan::DeviceId from, plan::DeviceId to) const override {
    return links_->estimate_transfer(bytes, from, to);
  }
  Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                              const std::vector<plan::DeviceId>& devices) const override {
    return links_->estimate_collective(kind, payload, devices);
  }
  Seconds estimate_shaped_collective(collective::CollectiveKind kind, Bytes payload,
                                     const cost_model::GroupShape& shape) const override {
    return links_->estimate_shaped_collective(kind, payload, shape);
  }
  Seconds estimate_optimizer(std::int64_t parameters, int device_class) const override {
    return faster(base_.estimate_optimizer(parameters, device_class), device_class);
  }
  Seconds estimate_step_overhead(int device_class) const override {
    return faster(base_.estimate_step_overhead(device_class), device_class);
  }
  Seconds estimate_action_overhead(int device_class) const override {
    return faster(base_.estimate_action_overhead(device_class), device_class);
  }
  Bytes base_memory(int device_class) const override { return base_.base_memory(device_class); }
  bool costs_by_signature() const override { return base_.costs_by_signature(); }
  Bytes communicator_memory(int device_class, const cluster::LinkClass& link) const override {
    return base_.communicator_memory(device_class, link);
  }
  const model::ModelGraph& model() const override { return base_.model(); }
  const cluster::ResourceGraph& resources() const override { return resources_; }

 private:
  [[nodiscard]] Seconds faster(Seconds time, int device_class) const {
    return speed_.empty() ? time : time / speed_[static_cast<std::size_t>(device_class)];
  }

  const cost_model::CostModel& base_;
  cluster::ResourceGraph resources_;
  std::vector<double> speed_;
  std::unique_ptr<cost_model::CostModel> links_;
};

}  // namespace coxswain::planner
