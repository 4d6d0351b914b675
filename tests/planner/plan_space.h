#pragma once
// Every plan of a small space, one after another: the oracle of the search. It knows nothing of planner/: stages, cuts,
// devices, shares, ZeRO and recompute come from the axes below, memory and steps from cost_model/.
// Branch and bound keeps it exact: a part of a plan is left out only when it does not fit into memory, or when one
// stage by itself takes longer than `at_most`: the way of the first micro-batch to it and back, then its own actions or
// its own messages one after another, then its update; nothing waits for anything else. A whole plan is simulated only
// where StepBound, which no simulated step is below, is not above the best so far; `set_plain` turns that off. Equal
// devices (one class, one node) are taken in order, so no two plans visited differ only in them. An axis of a stage is
// a function in `stage_axes`, an axis of the whole plan a loop in `PlanSpace::run`.
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
#include "tests/planner/stage_axes.h"

namespace coxswain::test_support {

class PlanSpace {
 public:
  PlanSpace(const cost_model::CostModel& cost, std::int64_t global_batch, SpaceAxes axes)
      : cost_(cost), axes_(std::move(axes)), global_(global_batch) {
    const cluster::ResourceGraph& graph = cost.resources();
    std::vector<std::int64_t> next(graph.device_classes.size(), 0);
    for (const cluster::NodeGroup& group : graph.nodes) {
      for (std::int64_t n = 0; n < group.count; ++n) {
        for (const auto& entry : graph.node_classes[static_cast<std::size_t>(group.node_class)].devices) {
          devices_.push_back({entry.device_class, next[static_cast<std::size_t>(entry.device_class)], entry.count});
          next[static_cast<std::size_t>(entry.device_class)] += entry.count;
        }
      }
    }
  }

  struct Best {
    double step = std::numeric_limits<double>::infinity();
    plan::Plan plan;
    std::int64_t simulated = 0, left_out = 0;  // left out: parts of plans, by the bound
    std::int64_t bounded = 0;                  // whole plans that StepBound left out
    bool complete = true;                      // false: `max_simulations` ended it
  };
  /// The best of all plans that take at most `at_most`; infinity where there is none.
  Best run(double at_most, std::int64_t max_simulations = std::numeric_limits<std::int64_t>::max()) {
    best_ = Best{};
    at_most_ = at_most;
    max_simulations_ = max_simulations;
    for (std::int64_t micro = 1; micro <= global_; ++micro) {
      if (global_ % micro != 0) continue;
      for (int stages = 1; stages <= cost_.facts().num_blocks(); ++stages) {
        for (const plan::ScheduleKind schedule : axes_.schedules) {
          // One stage, or one micro-batch, has one order.
          if ((stages == 1 || micro == global_) && schedule != axes_.schedules.front()) continue;
          begin(micro, stages, schedule);
          next_stage(0, {});
        }
      }
    }
    return best_;
  }

  /// Every whole plan is simulated, whatever StepBound says.
  void set_plain(bool plain) { plain_ = plain; }

  /// Every plan that fits into memory, with its roles.
  void visit_all(const std::function<void(const plan::Plan&)>& visit) {
    visit_ = visit;
    run(std::numeric_limits<double>::infinity());
    visit_ = nullptr;
  }

  /// A plan of the space that fits into memory; nothing where a few tries end at devices or memory that do not do.
  std::optional<plan::Plan> random_plan(std::mt19937& random) {
    best_ = Best{};
    at_most_ = std::numeric_limits<double>::infinity();
    const auto pick = [&](std::size_t count) { return static_cast<std::size_t>(random() % count); };
    for (int attempt = 0; attempt < 20; ++attempt) {
      std::vector<std::int64_t> micros;
      for (std::int64_t micro = 1; micro <= global_; ++micro) {
        if (global_ % micro == 0) micros.push_back(micro);
      }
      const int blocks = cost_.facts().num_blocks();
      begin(micros[pick(micros.size())], 1 + static_cast<int>(pick(static_cast<std::size_t>(blocks))),
            axes_.schedules[pick(axes_.schedules.size())]);
      int first = 0;
      while (static_cast<int>(placed_.size()) < num_stages_) {
        const int stage = static_cast<int>(placed_.size()), left = num_stages_ - stage - 1;
        const int end =
            left == 0 ? blocks : first + 1 + static_cast<int>(pick(static_cast<std::size_t>(blocks - left - first)));
        std::vector<const StageChoice*> possible;
        for (const std::vector<StageChoice>& alike : choices(stage, first, end)) {
          if (!is_free(alike.front())) continue;
          for (const StageChoice& choice : alike) possible.push_back(&choice);
        }
        if (possible.empty()) break;
        place(*possible[pick(possible.size())]);
        first = end;
      }
      if (static_cast<int>(placed_.size()) == num_stages_) return make_plan();
    }
    return std::nullopt;
  }

  /// Seconds that the plan of the stages placed takes at least: of the last random_plan.
  [[nodiscard]] double least_seconds() {
    std::vector<const StageTimes*> stages;
    Ticks update = 0, overhead = 0;
    for (const auto& [choice, offset] : placed_) {
      stages.push_back(&choice->times);
      for (const ReplicaTimes& replica : choice->times.replicas) update = std::max(update, replica.optimizer);
      for (const plan::Replica& replica : choice->stage.replicas)
        overhead = std::max(overhead,
                            cost_model::to_ticks(cost_.estimate_step_overhead(replica.devices.front().device_class)));
    }
    std::vector<const EdgeTimes*> edges;
    for (std::size_t s = 0; s + 1 < placed_.size(); ++s) {
      const StageChoice &from = *placed_[s].first, &to = *placed_[s + 1].first;
      const auto [at, fresh] = edges_.try_emplace(std::tuple{to.stage.first_block, from.shape, to.shape});
      if (fresh) at->second = edge_times(cost_, to.stage.first_block, placed_stage(s), placed_stage(s + 1));
      edges.push_back(&at->second);
    }
    const Ticks end = bound_.run(stages, edges, lists_, static_cast<int>(batch_.count), plan::Plan{}.receive_credits);
    return cost_model::to_seconds(end + norm_ticks() + update + overhead).value;
  }

 private:
  void begin(std::int64_t micro, int stages, plan::ScheduleKind schedule) {
    lists_.clear();
    for (int s = 0; s < stages; ++s)
      lists_.push_back(plan::make_schedule(schedule, s, stages, static_cast<int>(global_ / micro)));
    batch_ = {global_, micro, global_ / micro};
    num_stages_ = stages;
    schedule_ = schedule;
    set_prices();
    choices_.clear();
    placed_.clear();
    free_.clear();
    for (const EqualDevices& devices : devices_) free_.push_back(devices.count);
  }

  [[nodiscard]] bool is_free(const StageChoice& choice) const {
    bool free = true;
    for (std::size_t d = 0; d < free_.size(); ++d) free = free && choice.used[d] <= free_[d];
    return free;
  }

  void place(const StageChoice& choice) {
    placed_.push_back({&choice, offsets()});
    for (std::size_t d = 0; d < free_.size(); ++d) free_[d] -= choice.used[d];
  }

  void take_back() {
    for (std::size_t d = 0; d < free_.size(); ++d) free_[d] += placed_.back().first->used[d];
    placed_.pop_back();
  }

  [[nodiscard]] double limit() const { return std::min(best_.step, at_most_) * (1 + 1e-9); }

  /// All settings of blocks [first, end) as stage number `stage` that fit and may still be fast enough, those of one
  /// shape together, least busy first; made once.
  const std::vector<std::vector<StageChoice>>& choices(int stage, int first, int end) {
    const auto [at, fresh] = choices_.try_emplace({stage, first, end});
    if (!fresh) return at->second;
    const StageFrame frame{&cost_, &axes_, &devices_, batch_, schedule_, stage, num_stages_};
    std::vector<StageChoice> now(1);
    now.front().stage.first_block = first;
    now.front().stage.end_block = end;
    for (const StageAxis& axis : stage_axes()) {
      std::vector<StageChoice> longer;
      for (const StageChoice& choice : now)
        axis(frame, choice, [&](const StageChoice& found) {
          if (static_cast<double>(batch_.count) * compute_seconds(frame, found.stage) <= limit())
            longer.push_back(found);
        });
      now = std::move(longer);
    }
    std::map<int, std::vector<StageChoice>> by_shape;
    for (StageChoice& choice : now) {
      if (!weigh(frame, choice)) continue;
      choice.times = stage_times(cost_, choice.stage, plan::splits_backward(schedule_), stage + 1 == num_stages_,
                                 axes_.bucket_bytes);
      choice.shape = shape_of(choice);
      by_shape[choice.shape].push_back(std::move(choice));
    }
    for (auto& [shape, alike] : by_shape) {
      std::stable_sort(alike.begin(), alike.end(),
                       [](const StageChoice& a, const StageChoice& b) { return a.busy < b.busy; });
      at->second.push_back(std::move(alike));
    }
    return at->second;
  }

  [[nodiscard]] bool has_work(int first, int end) const {
    const auto& blocks = cost_.model().blocks;
    return blocks[static_cast<std::size_t>(first)].first_op < blocks[static_cast<std::size_t>(end - 1)].end_op;
  }

  /// Seconds at least: from the step's start to a stage and from it to the step's end, for one micro-batch; the same
  /// without the backward passes; all messages of the slowest edge; the slowest update.
  struct Way {
    double path = 0, forward = 0, messages = 0, optimizer = 0;
  };

  /// `from` longer by the edge between the stage placed last and `choice`.
  Way way_to(Way from, const StageChoice& choice, int cut) const {
    const auto& [before, offset] = placed_.back();
    const std::vector<std::int64_t> now = offsets();
    double forward = std::numeric_limits<double>::max(), backward = forward;
    std::int64_t first_sample = 0;
    for (std::size_t i = 0; i < before->stage.replicas.size(); ++i) {
      const plan::Replica& a = before->stage.replicas[i];
      std::int64_t other = 0;
      for (std::size_t j = 0; j < choice.stage.replicas.size(); ++j) {
        const plan::Replica& b = choice.stage.replicas[j];
        const std::int64_t common =
            std::min(first_sample + a.samples, other + b.samples) - std::max(first_sample, other);
        other += b.samples;
        if (common <= 0) continue;
        plan::DeviceId source = a.devices.front(), target = b.devices.front();
        source.index += offset[before->from[i]];
        target.index += now[choice.from[j]];
        const int shards = std::max(a.tensor, b.tensor);
        const auto seconds = [&](Bytes bytes) {
          return cost_.estimate_transfer(Bytes(bytes.value / shards), source, target).value;
        };
        forward = std::min(forward, seconds(cost_.facts().activation_bytes(cut, common, plan::Precision::Float32)));
        backward = std::min(backward, seconds(cost_.facts().gradient_bytes(cut, common, plan::Precision::Float32)));
      }
      first_sample += a.samples;
    }
    from.messages = std::max(from.messages, from.forward + static_cast<double>(batch_.count) * forward);
    from.path += forward + backward;
    from.forward += forward;
    return from;
  }

  /// Of the next device of each kind.
  [[nodiscard]] std::vector<std::int64_t> offsets() const {
    std::vector<std::int64_t> offset;
    for (std::size_t d = 0; d < devices_.size(); ++d) offset.push_back(devices_[d].count - free_[d]);
    return offset;
  }

  void next_stage(int first, const Way& start) {
    const int stage = static_cast<int>(placed_.size()), blocks = cost_.facts().num_blocks();
    if (stage == num_stages_) {
      simulate();
      return;
    }
    const int left = num_stages_ - stage - 1;
    for (int end = left == 0 ? blocks : first + 1; end <= blocks - left; ++end) {
      if (!has_work(first, end)) continue;
      for (const std::vector<StageChoice>& alike : choices(stage, first, end)) {
        if (!is_free(alike.front())) continue;
        const Way way = placed_.empty() ? start : way_to(start, alike.front(), first);
        // Where W is put off, the last ones run beside the way back of the last gradient.
        const double own = plan::splits_backward(schedule_) ? way.forward : way.path;
        for (const StageChoice& choice : alike) {
          const double all_own = own + static_cast<double>(batch_.count) * choice.busy;
          if (all_own > limit()) break;
          const double update = std::max(way.optimizer, choice.optimizer);
          const double path = way.path + choice.forward_min + choice.backward_min;
          const double forward = way.forward + choice.forward_min;
          double last = std::max({way.messages, all_own, path});
          if (left > 0) {
            // All that remains, on all devices that remain, after the way to it.
            last = std::max(last, (plan::splits_backward(schedule_) ? forward : path) + rest_seconds(end, choice));
          }
          if (last + update > limit()) {
            ++best_.left_out;
            continue;
          }
          place(choice);
          next_stage(end, {path, forward, way.messages, update});
          take_back();
        }
      }
    }
  }

  /// Seconds in which the devices that `choice` leaves take the whole batch through the blocks from `first` on, at
  /// least. A block is worth what the fastest kind of device needs for it; a device earns at most so much a second as
  /// on the block that suits it best.
  [[nodiscard]] double rest_seconds(int first, const StageChoice& choice) const {
    double worth = 0, earned = 0;
    for (std::size_t b = static_cast<std::size_t>(first); b < worth_.size(); ++b) worth += worth_[b];
    for (std::size_t d = 0; d < devices_.size(); ++d)
      earned +=
          static_cast<double>(free_[d] - choice.used[d]) * earns_[static_cast<std::size_t>(devices_[d].device_class)];
    if (earned <= 0) return std::numeric_limits<double>::infinity();
    return static_cast<double>(global_) * worth / earned;
  }

  /// What blocks are worth and devices earn, for samples of `batch_`.
  void set_prices() {
    const auto blocks = static_cast<std::size_t>(cost_.facts().num_blocks());
    const std::size_t classes = cost_.resources().device_classes.size();
    std::vector<std::vector<double>> seconds(classes);  // of a device for a sample, at best
    worth_.assign(blocks, std::numeric_limits<double>::max());
    for (std::size_t c = 0; c < classes; ++c) {
      for (std::size_t b = 0; b < blocks; ++b) {
        double least = std::numeric_limits<double>::max();
        for (int tensor = 1; tensor <= axes_.max_tensor; tensor *= 2) {
          for (std::int64_t samples = 1; samples <= batch_.micro; ++samples) {
            const cost_model::BlockTime time = cost_.estimate_block(
                {static_cast<int>(b), static_cast<int>(c), samples, plan::Precision::Float32, tensor});
            least = std::min(least, (time.forward + time.backward).value * tensor / static_cast<double>(samples));
          }
        }
        seconds[c].push_back(least);
        worth_[b] = std::min(worth_[b], least);
      }
    }
    earns_.assign(classes, 0);
    for (std::size_t c = 0; c < classes; ++c) {
      for (std::size_t b = 0; b < blocks; ++b) {
        if (seconds[c][b] > 0) earns_[c] = std::max(earns_[c], worth_[b] / seconds[c][b]);
      }
    }
  }

  [[nodiscard]] int shape_of(const StageChoice& choice) {
    std::vector<std::int64_t> key;
    for (std::size_t r = 0; r < choice.from.size(); ++r) {
      const plan::Replica& replica = choice.stage.replicas[r];
      key.insert(key.end(), {static_cast<std::int64_t>(choice.from[r]), replica.tensor, replica.samples});
    }
    return shapes_.try_emplace(key, static_cast<int>(shapes_.size())).first->second;
  }

  /// The stage on the devices that it has here.
  [[nodiscard]] plan::Stage placed_stage(std::size_t s) const {
    const auto& [choice, offset] = placed_[s];
    plan::Stage stage = choice->stage;
    for (std::size_t r = 0; r < choice->from.size(); ++r) {
      for (plan::DeviceId& device : stage.replicas[r].devices) device.index += offset[choice->from[r]];
    }
    return stage;
  }

  /// Ticks in which all devices of the plan sum a few numbers: the norm of the gradients.
  [[nodiscard]] Ticks norm_ticks() {
    std::vector<int> key;
    for (const auto& [choice, offset] : placed_) key.push_back(choice->shape);
    const auto [at, fresh] = norms_.try_emplace(key, 0);
    if (!fresh) return at->second;
    constexpr std::int64_t kScalars = 4;
    std::vector<plan::DeviceId> world;
    for (std::size_t s = 0; s < placed_.size(); ++s) {
      for (const plan::Replica& replica : placed_stage(s).replicas)
        world.insert(world.end(), replica.devices.begin(), replica.devices.end());
    }
    if (world.size() > 1)
      at->second = cost_model::to_ticks(
          cost_.estimate_collective(collective::CollectiveKind::AllReduce, Bytes(4 * kScalars), world));
    return at->second;
  }

  [[nodiscard]] plan::Plan make_plan() const {
    plan::Plan plan;
    plan.batch = batch_;
    plan.schedule = schedule_;
    for (std::size_t s = 0; s < placed_.size(); ++s) plan.stages.push_back(placed_stage(s));
    plan::fill_roles(plan, cost_.model(), axes_.bucket_bytes);
    return plan;
  }

  void simulate() {
    if (best_.simulated == max_simulations_) {
      best_.complete = false;
      return;
    }
    if (!plain_ && !visit_ && least_seconds() > limit()) {
      ++best_.bounded;
      return;
    }
    plan::Plan plan = make_plan();
    if (visit_) {
      visit_(plan);
      return;
    }
    ++best_.simulated;
    const auto simulation = cost_model::simulate(cost_, plan);
    if (!simulation || simulation->estimate.step.value >= best_.step) return;
    for (const plan::DeviceEstimate& device : simulation->estimate.devices) {
      if (device.parts.total() > device.capacity) return;
    }
    best_.step = simulation->estimate.step.value;
    best_.plan = std::move(plan);
  }

  const cost_model::CostModel& cost_;
  SpaceAxes axes_;
  std::int64_t global_ = 0;
  std::vector<EqualDevices> devices_;
  plan::Batch batch_;
  plan::ScheduleKind schedule_ = plan::ScheduleKind::OneForwardOneBackward;
  int num_stages_ = 1;
  std::map<std::tuple<int, int, int>, std::vector<std::vector<StageChoice>>> choices_;
  std::vector<std::pair<const StageChoice*, std::vector<std::int64_t>>> placed_;  // with the offsets of its devices
  std::vector<std::int64_t> free_;
  bool plain_ = false;
  std::vector<std::vector<plan::Action>> lists_;  // by stage
  std::vector<double> worth_, earns_;             // seconds of a sample by block; by device class
  std::map<std::vector<std::int64_t>, int> shapes_;
  std::map<std::tuple<int, int, int>, EdgeTimes> edges_;  // by cut and shapes
  std::map<std::vector<int>, Ticks> norms_;               // by shapes of the stages
  StepBound bound_;
  double at_most_ = 0;
  std::int64_t max_simulations_ = 0;
  Best best_;
  std::function<void(const plan::Plan&)> visit_;
};

}  // namespace coxswain::test_support
