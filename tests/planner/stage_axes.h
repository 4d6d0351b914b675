#pragma once
// What one stage of an enumerated plan may be, axis after axis, and what it weighs by itself: memory from cost_model/,
// times that no simulated stage is below. Knows nothing of planner/.
#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "cost_model/cost_model.h"
#include "cost_model/memory.h"
#include "cost_model/mesh_times.h"
#include "cost_model/offload_time.h"
#include "plan/capabilities.h"
#include "plan/program.h"
#include "plan/schedule.h"
#include "tests/planner/stage_times.h"

namespace coxswain::test_support {

/// What an enumeration may choose from.
struct SpaceAxes {
  std::vector<plan::ScheduleKind> schedules{plan::ScheduleKind::OneForwardOneBackward, plan::ScheduleKind::GPipe};
  int max_tensor = 1;         // degrees 1, 2, 4, ... inside a node
  bool mixed_tensor = false;  // replicas of one stage may differ in their degree
  int max_zero_stage = 0;
  bool recompute = true, selective = false;  // of any blocks
  bool offload = false;
  Bytes bucket_bytes{std::int64_t{25} << 20};
};

/// All that small spaces have, with tensor axes of up to `max_tensor` devices.
inline SpaceAxes full_axes(int max_tensor) {
  SpaceAxes axes;
  axes.schedules.insert(axes.schedules.end(), {plan::ScheduleKind::ZeroBubbleH1, plan::ScheduleKind::ZeroBubbleH2});
  axes.max_tensor = max_tensor;
  axes.max_zero_stage = 3;
  axes.selective = axes.offload = true;
  return axes;
}

/// What lets the search choose from the same, and from nothing that is not enumerated.
inline plan::Capabilities capabilities_of(const SpaceAxes& axes) {
  plan::Capabilities capabilities;
  capabilities.max_tensor = axes.max_tensor;
  capabilities.max_zero_stage = axes.max_zero_stage;
  capabilities.selective_recompute = axes.selective;
  capabilities.offload = axes.offload;
  capabilities.zero_bubble =
      std::any_of(axes.schedules.begin(), axes.schedules.end(), [](auto kind) { return plan::splits_backward(kind); });
  return capabilities;
}

/// Devices of one class on one node: any of them is as good as another.
struct EqualDevices {
  int device_class = 0;
  std::int64_t first_index = 0, count = 0;
};

/// A stage whose device ids still count from the first of their equal devices.
struct StageChoice {
  plan::Stage stage;
  std::vector<std::int64_t> used;                      // by equal devices
  std::vector<std::size_t> from;                       // equal devices of each replica
  double busy = 0, forward_min = 0, backward_min = 0;  // seconds of one micro-batch; backward without W put off
  double optimizer = 0;
  StageTimes times;
  int shape = 0;  // equal for equal kinds of devices with equal samples
};

/// Everything that a stage's axes may look at.
struct StageFrame {
  const cost_model::CostModel* cost = nullptr;
  const SpaceAxes* axes = nullptr;
  const std::vector<EqualDevices>* devices = nullptr;
  plan::Batch batch;
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  int stage = 0, num_stages = 1;
};
using Emit = std::function<void(const StageChoice&)>;
using StageAxis = std::function<void(const StageFrame&, const StageChoice&, const Emit&)>;

/// Replicas: any number of tensor units of every kind of equal devices.
inline void choose_meshes(const StageFrame& frame, const StageChoice& from, const Emit& emit) {
  const auto& devices = *frame.devices;
  std::function<void(const StageChoice&, std::size_t, int)> next = [&](const StageChoice& choice, std::size_t group,
                                                                       int degree) {
    if (group == devices.size()) {
      if (!choice.stage.replicas.empty()) emit(choice);
      return;
    }
    // Wide units first within a group, so that equal sets come once.
    if (degree > 1)
      next(choice, group, degree / 2);
    else
      next(choice, group + 1, frame.axes->max_tensor);
    const bool same = choice.stage.replicas.empty() || choice.stage.replicas.front().tensor == degree;
    if (!same && !frame.axes->mixed_tensor) return;
    if (choice.used[group] + degree > devices[group].count) return;
    if (static_cast<std::int64_t>(choice.stage.replicas.size()) >= frame.batch.micro) return;
    StageChoice more = choice;
    plan::Replica replica;
    replica.tensor = degree;
    for (int i = 0; i < degree; ++i)
      replica.devices.push_back({devices[group].device_class, devices[group].first_index + more.used[group] + i});
    more.used[group] += degree;
    more.from.push_back(group);
    more.stage.replicas.push_back(std::move(replica));
    next(more, group, degree);
  };
  StageChoice start = from;
  start.used.assign(devices.size(), 0);
  next(start, 0, frame.axes->max_tensor);
}

/// Shares of a micro-batch; among equal replicas the larger ones come first.
inline void choose_samples(const StageFrame& frame, const StageChoice& from, const Emit& emit) {
  const std::int64_t fixed = frame.cost->facts().static_batch();
  StageChoice choice = from;
  auto& replicas = choice.stage.replicas;
  std::function<void(std::size_t, std::int64_t)> next = [&](std::size_t r, std::int64_t left) {
    if (r == replicas.size()) {
      if (left == 0) emit(choice);
      return;
    }
    const bool equal = r > 0 && choice.from[r] == choice.from[r - 1] && replicas[r].tensor == replicas[r - 1].tensor;
    const auto later = static_cast<std::int64_t>(replicas.size() - r) - 1;
    const std::int64_t most = std::min(left - later, equal ? replicas[r - 1].samples : left);
    for (std::int64_t mine = r + 1 == replicas.size() ? left : 1; mine <= most; ++mine) {
      if (fixed > 0 && mine != fixed) continue;
      replicas[r].samples = mine;
      next(r + 1, left - mine);
    }
  };
  next(0, frame.batch.micro);
}

inline void choose_zero(const StageFrame& frame, const StageChoice& from, const Emit& emit) {
  StageChoice choice = from;
  for (int zero = 0; zero <= frame.axes->max_zero_stage; ++zero) {
    if (zero > 0 && choice.stage.replicas.size() < 2) return;
    choice.stage.zero_stage = zero;
    emit(choice);
  }
}

/// What each block recomputes, in any combination.
inline void choose_recompute(const StageFrame& frame, const StageChoice& from, const Emit& emit) {
  using plan::Recompute;
  StageChoice choice = from;
  auto& of_block = choice.stage.recompute;
  of_block.assign(static_cast<std::size_t>(choice.stage.end_block - choice.stage.first_block), Recompute::None);
  std::vector<Recompute> kinds{Recompute::None};
  if (frame.axes->recompute) kinds.push_back(Recompute::Full);
  if (frame.axes->selective) kinds.push_back(Recompute::Selective);
  std::function<void(std::size_t)> next = [&](std::size_t block) {
    if (block == of_block.size()) {
      emit(choice);
      return;
    }
    for (const Recompute kind : kinds) {
      of_block[block] = kind;
      next(block + 1);
    }
  };
  next(0);
}

/// To host memory goes what an accelerator has no room for; on a CPU both are one.
inline void choose_offload(const StageFrame& frame, const StageChoice& from, const Emit& emit) {
  StageChoice choice = from;
  const auto& replicas = choice.stage.replicas;
  const bool cpu = std::any_of(replicas.begin(), replicas.end(), [&](const plan::Replica& replica) {
    const auto device_class = static_cast<std::size_t>(replica.devices.front().device_class);
    return frame.cost->resources().device_classes[device_class].kind == cluster::DeviceKind::Cpu;
  });
  for (const plan::Offload offload : {plan::Offload::None, plan::Offload::Optimizer, plan::Offload::Activations}) {
    if (offload != plan::Offload::None && (cpu || !frame.axes->offload)) return;
    choice.stage.offload = offload;
    emit(choice);
  }
}

inline const std::vector<StageAxis>& stage_axes() {
  static const std::vector<StageAxis> kAxes{choose_meshes, choose_samples, choose_zero, choose_recompute,
                                            choose_offload};
  return kAxes;
}

/// Compute of one micro-batch on the slowest replica as far as it is chosen, without any communication.
inline double compute_seconds(const StageFrame& frame, const plan::Stage& stage) {
  double slowest = 0;
  for (const plan::Replica& replica : stage.replicas) {
    double seconds = 0;
    for (int block = stage.first_block; block < stage.end_block && replica.samples > 0; ++block) {
      const cost_model::BlockTime time = frame.cost->estimate_block(
          {block, replica.devices.front().device_class, replica.samples, plan::Precision::Float32, replica.tensor});
      seconds += time.forward.value + time.backward.value;
      const auto at = static_cast<std::size_t>(block - stage.first_block);
      if (at >= stage.recompute.size()) continue;
      if (stage.recompute[at] == plan::Recompute::Full) seconds += time.forward.value;
      if (stage.recompute[at] == plan::Recompute::Selective) seconds += time.replayed.value;
    }
    slowest = std::max(slowest, seconds);
  }
  return slowest;
}

/// Memory of each replica by the cost model, and the actions of each by themselves. False: it does not fit.
inline bool weigh(const StageFrame& frame, StageChoice& choice) {
  const cost_model::CostModel& cost = *frame.cost;
  const plan::Stage& stage = choice.stage;
  const auto count = static_cast<int>(frame.batch.count);
  choice.forward_min = choice.backward_min = std::numeric_limits<double>::max();
  for (std::size_t r = 0; r < stage.replicas.size(); ++r) {
    const plan::Replica& replica = stage.replicas[r];
    const int device_class = replica.devices.front().device_class;
    cost_model::StageWork work;
    work.first_block = stage.first_block;
    work.end_block = stage.end_block;
    work.device_class = device_class;
    work.samples = replica.samples;
    work.recompute = stage.recompute;
    work.list = plan::make_schedule(frame.schedule, frame.stage, frame.num_stages, count);
    work.receive_credits = std::min(plan::Plan{}.receive_credits, count);
    work.first_stage = frame.stage == 0;
    work.last_stage = frame.stage + 1 == frame.num_stages;
    work.tensor = replica.tensor;
    work.zero_stage = stage.zero_stage;
    work.replicas = static_cast<std::int64_t>(stage.replicas.size());
    work.context = replica.context;
    work.expert = replica.expert;
    work.offload = stage.offload;
    const Bytes capacity = cost.resources().device_classes[static_cast<std::size_t>(device_class)].memory.value;
    if (cost_model::estimate_stage_memory(cost, work).total() > capacity) return false;
    if (cost_model::estimate_stage_host_memory(cost, work) >
        cost_model::host_memory_of(cost.resources(), replica.devices.front()))
      return false;

    const bool split = plan::splits_backward(frame.schedule);
    const double overhead = cost.estimate_action_overhead(device_class).value;
    double forward = overhead, backward = overhead, later = split ? overhead : 0;
    const cost_model::Mesh mesh = cost_model::make_mesh(stage, static_cast<int>(r));
    for (int block = stage.first_block; block < stage.end_block; ++block) {
      const cost_model::MeshTicks time = cost_model::estimate_block_on_mesh(
          cost,
          {block, device_class, replica.samples, plan::Precision::Float32, replica.tensor, replica.context,
           replica.expert, stage.recompute[static_cast<std::size_t>(block - stage.first_block)]},
          mesh);
      forward += cost_model::to_seconds(time.forward).value;
      backward += cost_model::to_seconds((split ? time.input : time.backward) + time.recompute).value;
      if (split) later += cost_model::to_seconds(time.weight).value;
    }
    const cost_model::Ticks update = cost_model::estimate_update_on_mesh(
        cost,
        cost_model::count_persistent(cost.facts(), stage.first_block, stage.end_block, replica.tensor, replica.expert),
        plan::Precision::Float32, mesh);
    choice.optimizer = std::max(choice.optimizer, overhead + cost_model::to_seconds(update).value);
    choice.busy = std::max(choice.busy, forward + backward + later);
    choice.forward_min = std::min(choice.forward_min, forward);
    choice.backward_min = std::min(choice.backward_min, backward);
  }
  return true;
}

}  // namespace coxswain::test_support
