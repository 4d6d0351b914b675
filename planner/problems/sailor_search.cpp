#include "planner/problems/sailor_search.h"

#include <algorithm>
#include <map>

namespace coxswain::planner {
namespace {

constexpr std::int64_t kMaxLabels = 150'000, kMaxLabelsOfShape = 20'000;
constexpr std::int64_t kMaxCells = 400'000;     // of one table of bounds
constexpr std::int64_t kMaxWork = 100'000'000;  // entries of tables of bounds times stages
constexpr std::size_t kMaxResultsOfShape = 6;
constexpr std::size_t kMaxImproved = 3, kMaxStarts = 8;
constexpr std::size_t kMaxRowOrders = 120, kMaxRowStarts = 2;
constexpr std::int64_t kMaxPlansOfImprovement = 3'000;

class Search {
 public:
  Search(const SailorModel& model, bool strict) : model_(model), strict_(strict), classes_(make_classes(model)) {
    const SailorInstance& instance = model.instance();
    goal_.minimise_cost = instance.minimise_cost;
    if (instance.max_usd_per_iteration) goal_.max_usd = *instance.max_usd_per_iteration;
    if (instance.min_iterations_per_second) goal_.max_seconds = 1 / *instance.min_iterations_per_second;
  }

  std::optional<SailorFound> run() {
    for (const int micro_batch : model_.micro_batches()) spans_.try_emplace(micro_batch, model_, classes_, micro_batch);
    if (spans_.empty()) return std::nullopt;
    list_shapes();
    // From few plans to many: what the small searches find makes the large ones short.
    for (std::size_t c = 0; c < classes_.size() && classes_.size() > 1; ++c)
      for (const auto& [bound, shape] : shapes_)
        if (is_worth(bound, only_class(shape, c))) search_alike(only_class(shape, c));
    for (const auto& [bound, shape] : shapes_)
      if (is_worth(bound, shape)) search_alike(shape);
    for (const auto& [bound, shape] : shapes_)
      if (is_worth(bound, shape)) search_mixed(shape);
    improve_best();
    if (best_.empty()) return std::nullopt;
    found_.best = std::move(best_.front().plan);
    return std::move(found_);
  }

 private:
  [[nodiscard]] Cost best_cost() const { return best_.empty() ? kNoCost : best_.front().plan.cost; }

  [[nodiscard]] static SailorShape only_class(SailorShape shape, std::size_t c) {
    const std::int16_t units = shape.whole[c];
    shape.whole = {};
    shape.whole[c] = units;
    return shape;
  }

  bool is_worth(Cost bound, const SailorShape& shape) {
    if (bound >= best_cost()) return false;
    if (num_cells(shape) <= kMaxCells && work_ < kMaxWork) return true;
    found_.complete = false;
    return false;
  }
  [[nodiscard]] std::int64_t num_cells(const SailorShape& shape) const {
    return SailorRest::num_cells(model_.instance().num_layers, classes_.size(), shape.whole);
  }

  void list_shapes() {
    std::int64_t num_gpus = 0;
    for (const SailorClass& each : classes_) num_gpus += each.count;
    const std::int64_t batch = model_.instance().global_batch;
    for (const int micro_batch : model_.micro_batches()) {
      std::int64_t before = 0;
      for (std::int64_t replicas = 1; replicas <= num_gpus && micro_batch * (replicas - 1) < batch; ++replicas) {
        const std::int64_t count = model_.num_micro_batches(micro_batch, replicas);
        // More replicas for as many micro-batches gain nothing.
        if (strict_ ? batch % (micro_batch * replicas) != 0 : count == before) continue;
        before = count;
        list_shape({micro_batch, static_cast<int>(replicas), count - 1, {}});
      }
    }
    // Small ones first; those that divide the batch waste no samples, so they come before all others.
    const auto place = [&](const SailorShape& shape) {
      return std::pair{batch % (shape.micro_batch * shape.num_replicas) != 0, num_cells(shape)};
    };
    std::stable_sort(shapes_.begin(), shapes_.end(),
                     [&](const auto& a, const auto& b) { return place(a.second) < place(b.second); });
  }

  void list_shape(SailorShape shape) {
    const int most = model_.instance().num_layers * model_.degrees().back();
    for (std::size_t c = 0; c < classes_.size(); ++c)
      shape.whole[c] = static_cast<std::int16_t>(std::min(most, classes_[c].count / shape.num_replicas));
    const Cost bound = bound_shape(spans_.at(shape.micro_batch), rings(shape.num_replicas), shape, goal_);
    if (bound != kNoCost) shapes_.emplace_back(bound, shape);
  }

  SailorRings& rings(int num_replicas) {
    return rings_.try_emplace(num_replicas, spans_.begin()->second, num_replicas).first->second;
  }

  void search_alike(const SailorShape& shape) {
    if (std::all_of(shape.whole.begin(), shape.whole.end(), [](int units) { return units == 0; })) return;
    const SailorTables tables(spans_.at(shape.micro_batch), rings(shape.num_replicas), shape, goal_, best_cost());
    work_ += tables.rest().work();
    search(tables, shape.whole, nullptr);
  }

  void search_mixed(const SailorShape& shape) {
    if (classes_.size() < 2 || shape.num_replicas < 2) return;
    const SailorTables tables(spans_.at(shape.micro_batch), rings(shape.num_replicas), shape, goal_, best_cost());
    work_ += tables.rest().work();
    const auto num_groups = static_cast<int>(tables.spans().groups().size());
    for (int a = 0; a < num_groups; ++a) {
      for (int b = a + 1; b < num_groups; ++b) {
        if (tables.class_of(a) == tables.class_of(b)) continue;
        const std::vector<SailorUnits> boxes = list_boxes(tables, a, b);
        if (boxes.empty()) continue;
        SailorMix mix{{a, b}, tables.list_mixed({a, b}), std::nullopt};
        if (std::all_of(mix.options.begin(), mix.options.end(), [](const auto& each) { return each.empty(); }))
          continue;
        mix.rest.emplace(tables.rest(), tables.options(), mix.options);
        work_ += mix.rest->work();
        for (const SailorUnits& box : boxes) search(tables, box, &mix);
      }
    }
  }

  /// What a mixed stage of groups a and b can leave to the others: the more of one class, the less of the other.
  [[nodiscard]] std::vector<SailorUnits> list_boxes(const SailorTables& tables, int a, int b) const {
    const std::size_t c = tables.class_of(a), d = tables.class_of(b);
    const int replicas = tables.shape().num_replicas;
    std::vector<SailorUnits> boxes;
    for (int units = tables.shape().whole[c]; units >= 0; --units) {
      const int count = std::min(replicas - 1, (classes_[c].count - units * replicas) / tables.tp(a));
      const int needed = (replicas - count) * tables.tp(b);
      if (count < 1 || needed > classes_[d].count) continue;
      SailorUnits box = tables.shape().whole;
      box[c] = static_cast<std::int16_t>(units);
      box[d] = static_cast<std::int16_t>(std::min<int>(box[d], (classes_[d].count - needed) / replicas));
      if (boxes.empty() || box[d] > boxes.back()[d]) boxes.push_back(box);
    }
    return boxes;
  }

  void search(const SailorTables& tables, const SailorUnits& box, const SailorMix* mix) {
    if (found_.num_labels >= kMaxLabels) {
      found_.complete = false;
      return;
    }
    ++found_.num_searches;
    SailorStages problem(tables, box, mix);
    const auto result = search_labels(
        problem, {best_cost(), 1, std::min(kMaxLabelsOfShape, kMaxLabels - found_.num_labels), kMaxResultsOfShape});
    found_.num_labels += result.num_labels;
    found_.complete = found_.complete && result.complete;
    for (const auto& each : result.best)
      if (each.cost < best_cost()) deal(sketch(tables, problem, each.path));
  }

  [[nodiscard]] SailorSketch sketch(const SailorTables& tables, const SailorStages& problem,
                                    const std::vector<SailorStages::Option>& path) const {
    const int replicas = tables.shape().num_replicas;
    SailorUnits used{};
    for (const SailorStages::Option& option : path) {
      const int c = option.stage->class_index;
      if (c >= 0)
        used[static_cast<std::size_t>(c)] =
            static_cast<std::int16_t>(used[static_cast<std::size_t>(c)] + option.stage->units);
    }
    SailorSketch result{tables.shape().micro_batch, {}};
    int end = model_.instance().num_layers;
    for (const SailorStages::Option& option : path) {
      const SailorComposition& composition = option.stage->composition;
      const int count = composition.mixed() ? problem.mixed_count(used) : replicas;
      const auto part = [&](int group, int part_count) {
        return SailorPart{static_cast<int>(tables.class_of(group)), tables.tp(group), part_count};
      };
      SailorSketch::Stage stage{option.stage->first, end, {part(composition.first, count)}};
      if (composition.mixed()) stage.parts.push_back(part(composition.second, replicas - count));
      end = stage.first;
      result.stages.insert(result.stages.begin(), std::move(stage));
    }
    return result;
  }

  void deal(SailorSketch sketch) {
    auto plans = deal_zones(model_, classes_, goal_, sketch, 1);
    for (PricedSailorPlan& plan : deal_rows(model_, classes_, goal_, sketch, 1, 1)) plans.push_back(std::move(plan));
    if (plans.empty()) return;
    PricedSailorPlan plan = std::move(*std::min_element(plans.begin(), plans.end(), is_better));
    const auto at =
        std::find_if(best_.begin(), best_.end(), [&](const Dealt& other) { return is_better(plan, other.plan); });
    best_.insert(at, Dealt{std::move(sketch), std::move(plan)});
    if (best_.size() > kMaxImproved) best_.pop_back();
  }

  /// The best sketches once more, from several starts each.
  void improve_best() {
    for (Dealt& dealt : best_) {
      auto starts = deal_zones(model_, classes_, goal_, dealt.sketch, kMaxStarts);
      for (PricedSailorPlan& start : deal_rows(model_, classes_, goal_, dealt.sketch, kMaxRowOrders, kMaxRowStarts))
        starts.push_back(std::move(start));
      for (PricedSailorPlan& start : starts) {
        PricedSailorPlan plan = improve(model_, goal_, std::move(start), kMaxPlansOfImprovement);
        if (is_better(plan, dealt.plan)) dealt.plan = std::move(plan);
      }
    }
    std::erase_if(best_, [](const Dealt& each) { return each.plan.cost == kNoCost; });
    std::stable_sort(best_.begin(), best_.end(),
                     [](const Dealt& a, const Dealt& b) { return is_better(a.plan, b.plan); });
  }

  struct Dealt {
    SailorSketch sketch;
    PricedSailorPlan plan;
  };

  const SailorModel& model_;
  bool strict_;
  std::vector<SailorClass> classes_;
  SailorGoal goal_;
  std::map<int, SailorSpans> spans_;
  std::map<int, SailorRings> rings_;
  std::vector<std::pair<Cost, SailorShape>> shapes_;  // with their bounds, in the order of their searches
  std::int64_t work_ = 0;
  std::vector<Dealt> best_;
  SailorFound found_;
};

}  // namespace

std::optional<SailorFound> search_sailor(const SailorModel& model, bool strict) { return Search(model, strict).run(); }

}  // namespace coxswain::planner
