#include "planner/problems/metis_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "planner/label_search.h"

namespace coxswain::planner {
namespace {

/// Whole numbers of this unit keep sums exact.
constexpr double kTicksPerMs = 1e9;
constexpr std::int64_t kMaxLabels = 2'000'000;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Cost to_ticks(double ms) { return std::llround(ms * kTicksPerMs); }
/// Less what rounding of each of up to so many stages may take away.
Cost to_bound(double ms) {
  constexpr Cost kMaxStages = 512;
  return std::max<Cost>(0, static_cast<Cost>(std::floor(ms * kTicksPerMs * (1 - 1e-12))) - kMaxStages);
}

/// Replicas of one type in a stage, without devices.
struct Member {
  int type = 0, count = 1;
  std::int64_t samples = 1;
  MetisTimes times;
};

/// A way to run a stage, whatever its layers and devices.
struct Way {
  int tp = 1;
  std::vector<Member> members;

  [[nodiscard]] double ms(int first, int end) const {
    double slowest = 0;
    for (const Member& member : members)
      slowest = std::max(
          slowest, member.times.ms[static_cast<std::size_t>(end)] - member.times.ms[static_cast<std::size_t>(first)]);
    return slowest;
  }
  [[nodiscard]] double whole_ms() const { return ms(0, static_cast<int>(members.front().times.ms.size()) - 1); }
  [[nodiscard]] int num_devices() const {
    int count = 0;
    for (const Member& member : members) count += member.count * tp;
    return count;
  }
};

/// The splits of `micro` samples over two types where the slower takes least.
std::optional<Way> mix(const MetisModel& model, int tp, Member a, Member b, std::int64_t micro) {
  std::optional<Way> best;
  const std::int64_t most = model.instance().points.at({a.type, tp}).rbegin()->first;
  const std::int64_t limit = std::min(most, (micro - 1) / a.count);
  for (std::int64_t samples = 1; samples <= limit; ++samples) {
    const std::int64_t rest = micro - samples * a.count;
    if (rest % b.count != 0) continue;
    const auto times_a = model.times({a.type, tp}, samples), times_b = model.times({b.type, tp}, rest / b.count);
    if (!times_a || !times_b) continue;
    Way way{tp, {{a.type, a.count, samples, *times_a}, {b.type, b.count, rest / b.count, *times_b}}};
    if (!best || way.whole_ms() < best->whole_ms()) best = std::move(way);
  }
  return best;
}

std::vector<Way> list_ways(const MetisModel& model, std::int64_t micro) {
  std::vector<Way> ways;
  const auto& points = model.instance().points;
  for (const auto& [shard, by_batch] : points) {
    for (int count = 1; count * shard.tp <= model.num_devices(shard.type); ++count) {
      if (micro % count != 0) continue;
      if (auto times = model.times(shard, micro / count))
        ways.push_back({shard.tp, {{shard.type, count, micro / count, std::move(*times)}}});
    }
    for (auto other = points.upper_bound(shard); other != points.end(); ++other) {
      if (other->first.tp != shard.tp || other->first.type == shard.type) continue;
      for (int a = 1; a * shard.tp <= model.num_devices(shard.type); a *= 2) {
        for (int b = 1; b * shard.tp <= model.num_devices(other->first.type); b *= 2) {
          if (auto way = mix(model, shard.tp, {shard.type, a, 1, {}}, {other->first.type, b, 1, {}}, micro))
            ways.push_back(std::move(*way));
        }
      }
    }
  }
  return ways;
}

/// Stages from the loss side for one count of micro-batches.
class MetisProblem {
 public:
  struct State {
    int end = 0;            // layers [0, end) are to be placed
    std::vector<int> used;  // devices by type
    int depth = 0;          // stages placed
    int host = -1;          // that holds all of the last placed one, or -1
    int types = 0;          // a bit for each type of it
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    Cost sum = 0, slowest = 0, update = 0, reduce = 0;
  };
  struct Option {
    int way = 0, first = 0;
    MetisStage stage;
  };

  MetisProblem(const MetisModel& model, std::int64_t micro_batches, const std::vector<Way>& ways)
      : model_(model), instance_(model.instance()), micro_batches_(micro_batches), ways_(ways) {
    fill_bounds();
  }

  /// Only stages with this degree and number of devices, of one type each; 0: all.
  void restrict_to(int tp, int devices) {
    only_tp_ = tp;
    only_devices_ = devices;
  }

  [[nodiscard]] std::pair<State, Label> start() const {
    Label label;
    label.sum = to_ticks(static_cast<double>(micro_batches_) * instance_.generator_ms);
    return {{instance_.num_layers, std::vector<int>(instance_.types.size(), 0), 0, -1, 0}, label};
  }
  [[nodiscard]] int layer(const State& state) const { return instance_.num_layers - state.end; }
  [[nodiscard]] bool is_final(const State& state) const { return state.end == 0; }

  template <class Visit>
  void for_each_option(const State& state, Visit&& visit) {
    for (std::size_t w = 0; w < ways_.size(); ++w) {
      const Way& way = ways_[w];
      if (only_devices_ > 0 && (way.tp != only_tp_ || way.num_devices() != only_devices_ || way.members.size() > 1))
        continue;
      auto stage = place(way, state.used);
      if (!stage) continue;
      stage->end = state.end;
      for (int first = state.end - 1; first >= 0; --first) {
        if (!fits(way, first, state.end, state.depth + 1)) break;  // more layers need more
        stage->first = first;
        visit(Option{static_cast<int>(w), first, *stage});
      }
    }
  }

  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& option) const {
    const Way& way = ways_[static_cast<std::size_t>(option.way)];
    const MetisStage& stage = option.stage;
    State next = state;
    next.end = stage.first;
    next.depth = state.depth + 1;
    next.host = model_.common_host(stage);
    next.types = 0;
    for (const MetisReplicas& each : stage.replicas) {
      next.used[static_cast<std::size_t>(each.type)] = each.first_device + each.count * stage.tp;
      next.types |= 1 << each.type;
    }
    const Cost time = to_ticks(way.ms(stage.first, stage.end));
    Label result = label;
    result.sum += time;
    result.slowest = std::max(label.slowest, time);
    result.update = std::max(label.update, to_ticks(model_.update_ms(stage)));
    result.reduce = std::max(label.reduce, to_ticks(model_.reduce_ms(stage)));
    if (state.depth == 0) {
      result.sum += to_ticks(static_cast<double>(micro_batches_) * model_.sync_ms(stage));
    } else {
      result.sum += to_ticks(model_.cut_ms(stage, following(state)));
    }
    return std::pair{std::move(next), result};
  }

  [[nodiscard]] bool dominates(const Label& a, const Label& b) const {
    return a.sum <= b.sum && a.slowest <= b.slowest && a.update <= b.update && a.reduce <= b.reduce;
  }
  [[nodiscard]] Cost bound(const State& state, const Label& label) const {
    if (state.end == 0) return finish(state, label);
    double speed = 0;
    for (std::size_t type = 0; type < speed_.size(); ++type)
      speed += speed_[type] * (model_.num_devices(static_cast<int>(type)) - state.used[type]);
    if (!(speed > 0)) return kNoCost;
    const auto end = static_cast<std::size_t>(state.end);
    const Cost slowest = to_bound(work_ms_[end] / speed);
    return (micro_batches_ - 1) * std::max(label.slowest, slowest) + label.sum +
           std::max(slowest, to_bound(least_ms_[end])) + label.update + label.reduce;
  }
  [[nodiscard]] Cost finish(const State&, const Label& label) const {
    return (micro_batches_ - 1) * label.slowest + label.sum + label.update + label.reduce;
  }
  [[nodiscard]] Cost root_bound() const {
    if (ways_.empty()) return kNoCost;
    const auto [state, label] = start();
    return bound(state, label);
  }

 private:
  /// The next free devices, layers open.
  [[nodiscard]] std::optional<MetisStage> place(const Way& way, const std::vector<int>& used) const {
    MetisStage stage;
    stage.tp = way.tp;
    for (const Member& member : way.members) {
      const int first =
          model_.find_room(member.type, way.tp, member.count, used[static_cast<std::size_t>(member.type)]);
      if (first < 0) return std::nullopt;
      stage.replicas.push_back({member.type, member.count, member.samples, first});
    }
    return stage;
  }

  [[nodiscard]] bool fits(const Way& way, int first, int end, int depth) const {
    const auto from = static_cast<std::size_t>(first), to = static_cast<std::size_t>(end);
    const auto further = static_cast<double>(std::min<std::int64_t>(micro_batches_, depth) - 1);
    return std::all_of(way.members.begin(), way.members.end(), [&](const Member& member) {
      const MetisTimes& times = member.times;
      return times.mb[to] - times.mb[from] + further * (times.growth_mb[to] - times.growth_mb[from]) <=
             instance_.types[static_cast<std::size_t>(member.type)].memory_mb;
    });
  }

  /// What cut_ms asks of the stage behind: its host and its types.
  [[nodiscard]] MetisStage following(const State& state) const {
    MetisStage stage;
    for (std::size_t type = 0; type < instance_.types.size(); ++type) {
      if ((state.types >> type & 1) == 0) continue;
      const int last = state.used[type] - 1;
      if (state.host >= 0) {
        stage.replicas.push_back({static_cast<int>(type), 1, 1, last});
      } else {
        stage.replicas.push_back({static_cast<int>(type), 1, 1, last});
        stage.replicas.push_back({static_cast<int>(type), 1, 1, last});  // two entries: no common host
      }
    }
    return stage;
  }

  void fill_bounds();

  const MetisModel& model_;
  const MetisInstance& instance_;
  std::int64_t micro_batches_;
  const std::vector<Way>& ways_;
  int only_tp_ = 0, only_devices_ = 0;
  std::vector<double> least_ms_;  // by end: what the layers before take one after the other at least
  std::vector<double> work_ms_;   // by end: device time of a micro-batch at least, on the best type
  std::vector<double> speed_;     // by type: at most, of the best type's
};

void MetisProblem::fill_bounds() {
  const auto num_layers = static_cast<std::size_t>(instance_.num_layers), num_types = instance_.types.size();
  const auto micro = static_cast<double>(instance_.global_batch / micro_batches_);
  std::vector<double> least(num_layers, kInfinity);
  std::vector<std::vector<double>> work(num_types, std::vector<double>(num_layers, kInfinity));
  for (const Way& way : ways_) {
    // A stage takes at least what the member that is slowest on the whole model takes.
    const Member& slowest =
        *std::max_element(way.members.begin(), way.members.end(),
                          [](const Member& a, const Member& b) { return a.times.ms.back() < b.times.ms.back(); });
    for (std::size_t l = 0; l < num_layers; ++l) {
      least[l] = std::min(least[l], slowest.times.ms[l + 1] - slowest.times.ms[l]);
      for (const Member& member : way.members) {
        double& here = work[static_cast<std::size_t>(member.type)][l];
        here = std::min(here,
                        (member.times.ms[l + 1] - member.times.ms[l]) * way.tp / static_cast<double>(member.samples));
      }
    }
  }
  least_ms_ = work_ms_ = {0};
  speed_.assign(num_types, 0);
  for (std::size_t l = 0; l < num_layers; ++l) {
    double best = kInfinity;
    for (std::size_t type = 0; type < num_types; ++type) best = std::min(best, work[type][l]);
    least_ms_.push_back(least_ms_.back() + least[l]);
    work_ms_.push_back(work_ms_.back() + micro * best);
    for (std::size_t type = 0; type < num_types; ++type) {
      if (work[type][l] == kInfinity) continue;
      speed_[type] = std::max(speed_[type], work[type][l] > 0 ? best / work[type][l] : 1);
    }
  }
}

class Search {
 public:
  explicit Search(const MetisModel& model) : model_(model) {}

  std::optional<MetisFound> run() {
    struct Count {
      Cost bound;
      std::int64_t micro_batches;
      std::vector<Way> ways;
    };
    std::vector<Count> counts;
    const std::int64_t global = model_.instance().global_batch;
    for (std::int64_t m = 1; m <= global; ++m) {
      if (global % m != 0) continue;
      Count count{0, m, list_ways(model_, global / m)};
      count.bound = MetisProblem(model_, m, count.ways).root_bound();
      if (count.bound != kNoCost) counts.push_back(std::move(count));
    }
    std::stable_sort(counts.begin(), counts.end(), [](const Count& a, const Count& b) { return a.bound < b.bound; });
    for (const Count& count : counts) {
      if (count.bound < best_) {
        search(count.micro_batches, count.ways);
      } else {
        lower_bound_ = std::min(lower_bound_, count.bound);
      }
    }
    if (best_ == kNoCost) return std::nullopt;
    const auto estimate = model_.estimate(plan_);
    return MetisFound{plan_, *estimate,
                      std::min(estimate->ms, static_cast<double>(std::min(best_, lower_bound_)) / kTicksPerMs),
                      num_labels_};
  }

 private:
  /// First plans of like stages, quickly, then all.
  void search(std::int64_t micro_batches, const std::vector<Way>& ways) {
    MetisProblem problem(model_, micro_batches, ways);
    std::vector<std::pair<int, int>> shapes;
    for (const Way& way : ways) {
      if (way.members.size() == 1) shapes.emplace_back(way.tp, way.num_devices());
    }
    std::sort(shapes.begin(), shapes.end());
    shapes.erase(std::unique(shapes.begin(), shapes.end()), shapes.end());
    for (const auto& [tp, devices] : shapes) {
      problem.restrict_to(tp, devices);
      take(search_labels(problem, {.upper_bound = best_, .max_labels = kMaxLabels}), micro_batches);
    }
    problem.restrict_to(0, 0);
    const auto result = search_labels(problem, {.upper_bound = best_, .max_labels = kMaxLabels});
    lower_bound_ = std::min(lower_bound_, result.lower_bound);
    take(result, micro_batches);
  }

  void take(const SearchResult<MetisProblem>& result, std::int64_t micro_batches) {
    num_labels_ += result.num_labels;
    if (result.best.empty()) return;
    best_ = result.best.front().cost;
    plan_ = {micro_batches, {}};
    const auto& path = result.best.front().path;
    for (auto option = path.rbegin(); option != path.rend(); ++option) plan_.stages.push_back(option->stage);
  }

  const MetisModel& model_;
  Cost best_ = kNoCost, lower_bound_ = kNoCost;
  MetisPlan plan_;
  std::int64_t num_labels_ = 0;
};

}  // namespace

std::optional<MetisFound> search_metis(const MetisModel& model) { return Search(model).run(); }

}  // namespace coxswain::planner
