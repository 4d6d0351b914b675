#include "planner/problems/galvatron_search.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <utility>

#include "planner/problems/galvatron_cost.h"
#include "planner/problems/galvatron_stage.h"

namespace coxswain::planner {
namespace {

constexpr double kTicksPerMs = 1e9;

Cost to_ticks(double ms) { return std::llround(ms * kTicksPerMs); }

/// What all plans of one pp and chunk count have in common whose layers have at most `largest` degree, and tp > 1 in
/// layers or ends only with `tensor`: then the communication buffer is taken from the memory.
struct Family {
  GalvatronSetting setting;
  bool tensor = false;
  int largest = 1;
  std::int64_t buffer = 0;
  std::vector<std::vector<GalvatronLayerOption>> options;  // by stage: memory differs
  std::map<int, Cost> resharding;
  Cost least_resharding = kNoCost;
};

struct Ends {
  GalvatronStrategy strategy;
  std::vector<Cost> free;              // by stage
  std::vector<std::int64_t> capacity;  // what they leave to the layers
};

struct Candidate {
  Cost bound = 0;
  std::size_t family = 0;
  GalvatronStrategy embedding;
  std::vector<int> split;
  bool peer_split = false;
  std::vector<Cost> stage_bounds;
};

Cost sum_of(const std::vector<Cost>& costs) {
  Cost sum = 0;
  for (const Cost cost : costs) sum += cost;
  return sum;
}

/// Formula 14, or the charge for the slowest stage.
Cost pipeline_cost(const GalvatronSetting& setting, bool peer_split, Cost sum, Cost first, Cost last, Cost slowest) {
  if (!peer_split) return sum + (setting.chunks - 1) * slowest;
  return std::max(
      {sum + (setting.chunks - 1) * last, setting.chunks * first, sum + (setting.chunks - setting.pp) * first});
}

/// What stage `i` does to the step at least when the others take their bounds: linear parts of pipeline_cost + (15).
std::vector<GalvatronCharge> stage_charges(const GalvatronSetting& setting, const Candidate& candidate, std::size_t i) {
  const std::vector<Cost>& bounds = candidate.stage_bounds;
  const std::int64_t chunks = setting.chunks;
  const std::size_t last = bounds.size() - 1;
  const Cost others = sum_of(bounds) - bounds[i];
  Cost after = 0, slowest = 0;
  for (std::size_t j = 0; j < bounds.size(); ++j) {
    if (j > i) after += bounds[j];
    if (j != i) slowest = std::max(slowest, bounds[j]);
  }
  if (!candidate.peer_split) {
    return {{others, chunks, 0},
            {others + (chunks - 1) * slowest, 1, 0},
            {after, chunks - 1, 1},
            {after + (chunks - 1) * slowest, 0, 1}};
  }
  const Cost by_first = (chunks - setting.pp) * bounds.front(), by_last = (chunks - 1) * bounds[last];
  if (i == 0) {
    return {{others + by_last, 1, 0},
            {0, chunks, 0},
            {others, chunks - setting.pp + 1, 0},
            {after + by_last, 0, 1},
            {after, chunks - setting.pp, 1}};
  }
  if (i == last) return {{others, chunks, 0}, {others + by_first, 1, 0}, {0, chunks - 1, 1}, {by_first, 0, 1}};
  const Cost fill = std::max(by_first, by_last);
  return {{others + fill, 1, 0}, {after + fill, 0, 1}};
}

/// Joins one choice per stage.
class JoinProblem {
 public:
  struct State {
    int stage = 0, last_degree = 0;
    friend auto operator<=>(const State&, const State&) = default;
  };
  struct Label {
    Cost sum = 0, synced = 0;  // of stage times; to the end of the last gradient sync
    Cost first = 0, last = 0, slowest = 0;
    Cost resharding = 0;
  };
  struct Option {
    int choice = 0;
  };

  JoinProblem(const Family& family, bool peer_split, const std::vector<std::vector<GalvatronChoice>>& choices)
      : family_(family), peer_split_(peer_split), choices_(choices), rest_(choices.size() + 1) {
    for (std::size_t stage = choices.size(); stage-- > 0;) {
      Cost least = kNoCost;
      for (const GalvatronChoice& choice : choices[stage]) least = std::min(least, choice.free);
      rest_[stage] = rest_[stage + 1] + least;
    }
  }

  [[nodiscard]] std::pair<State, Label> start() const { return {}; }
  [[nodiscard]] int layer(const State& state) const { return state.stage; }
  [[nodiscard]] bool is_final(const State& state) const { return state.stage == family_.setting.pp; }

  template <class Visit>
  void for_each_option(const State& state, Visit&& visit) {
    const std::size_t count = choices_[static_cast<std::size_t>(state.stage)].size();
    for (std::size_t i = 0; i < count; ++i) visit(Option{static_cast<int>(i)});
  }

  [[nodiscard]] std::optional<std::pair<State, Label>> extend(const State& state, const Label& label,
                                                              const Option& option) const {
    const auto stage = static_cast<std::size_t>(state.stage);
    const GalvatronChoice& choice = choices_[stage][static_cast<std::size_t>(option.choice)];
    const int first_degree = degree(stage, choice.options.front());
    Label to = label;
    if (state.stage > 0 && state.last_degree != first_degree) {
      const auto change = family_.resharding.find(std::max(state.last_degree, first_degree));
      if (change == family_.resharding.end()) return std::nullopt;
      to.resharding += change->second;
    }
    to.resharding += choice.resharding;
    to.sum += choice.free;
    to.synced = state.stage == 0 ? choice.sync : std::max(label.synced + choice.free, choice.sync);
    if (peer_split_) {
      if (state.stage == 0) to.first = choice.free;
      if (state.stage + 1 == family_.setting.pp) to.last = choice.free;
    } else {
      to.slowest = std::max(label.slowest, choice.free);
    }
    return std::pair{State{state.stage + 1, degree(stage, choice.options.back())}, to};
  }

  [[nodiscard]] bool dominates(const Label& a, const Label& b) const {
    return a.sum <= b.sum && a.synced <= b.synced && a.first <= b.first && a.last <= b.last && a.slowest <= b.slowest &&
           a.resharding <= b.resharding;
  }
  [[nodiscard]] Cost bound(const State& state, const Label& label) const {
    const Cost rest = rest_[static_cast<std::size_t>(state.stage)];
    const Cost pipeline =
        pipeline_cost(family_.setting, peer_split_, label.sum + rest, label.first, label.last, label.slowest);
    return pipeline + std::max<Cost>(0, label.synced - label.sum) + family_.setting.chunks * label.resharding;
  }
  [[nodiscard]] Cost finish(const State& state, const Label& label) const { return bound(state, label); }

 private:
  [[nodiscard]] int degree(std::size_t stage, int option) const {
    return family_.options[stage][static_cast<std::size_t>(option)].degree;
  }

  const Family& family_;
  bool peer_split_;
  const std::vector<std::vector<GalvatronChoice>>& choices_;
  std::vector<Cost> rest_;
};

/// Bounds of a stage's time by its number of layers, at one family and ends.
struct StageBounds {
  std::vector<std::vector<Cost>> pure, mixed;  // [stage][layers]; kNoCost: does not fit
};

class Search {
 public:
  explicit Search(const GalvatronInstance& instance) : instance_(instance), budget_(budget_mb(instance)) {}

  std::optional<GalvatronFound> run() {
    for (const GalvatronSetting& setting : settings()) add_families(setting);
    for (std::size_t f = 0; f < families_.size(); ++f) list_candidates(f);
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.bound < b.bound; });
    for (const Candidate& candidate : candidates_) {
      if (candidate.bound >= incumbent_) break;
      round(candidate);
      solve(candidate);
    }
    if (incumbent_ == kNoCost) return std::nullopt;
    return GalvatronFound{std::move(best_), num_labels_};
  }

 private:
  [[nodiscard]] std::vector<GalvatronSetting> settings() const;
  void add_families(const GalvatronSetting& setting);
  [[nodiscard]] std::optional<Family> make_family(const GalvatronSetting& setting, bool tensor, int largest) const;
  [[nodiscard]] std::optional<Ends> make_ends(const Family& family, const GalvatronStrategy& strategy) const;
  void list_candidates(std::size_t f);
  [[nodiscard]] StageBounds stage_bounds(const Family& family, const Ends& ends) const;
  void add_candidate(std::size_t f, const Ends& ends, const StageBounds& bounds, std::vector<int> split,
                     bool peer_split);
  [[nodiscard]] std::vector<GalvatronStage> make_stages(const Candidate& candidate) const;
  void round(const Candidate& candidate);
  void solve(const Candidate& candidate);
  void join(const Candidate& candidate, const std::vector<std::vector<GalvatronChoice>>& choices);

  const GalvatronInstance& instance_;
  std::int64_t budget_;
  std::vector<Family> families_;
  std::vector<Candidate> candidates_;
  Cost incumbent_ = kNoCost;
  GalvatronPlan best_;
  std::int64_t num_labels_ = 0;
};

std::vector<GalvatronSetting> Search::settings() const {
  std::vector<GalvatronSetting> result;
  for (int pp = 1; pp <= std::min({instance_.gpus, instance_.max_degree, instance_.layers}); pp *= 2) {
    for (std::int64_t chunks = pp; chunks <= instance_.global_batch; ++chunks) {
      if (instance_.global_batch % chunks != 0 || (instance_.chunks && *instance_.chunks != chunks)) continue;
      result.push_back({pp, chunks});
    }
  }
  return result;
}

void Search::add_families(const GalvatronSetting& setting) {
  const int most = std::min(instance_.gpus / setting.pp, instance_.max_degree);
  if (auto family = make_family(setting, false, most)) families_.push_back(std::move(*family));
  for (int largest = 2; largest <= most; largest *= 2)
    if (auto family = make_family(setting, true, largest)) families_.push_back(std::move(*family));
}

std::optional<Family> Search::make_family(const GalvatronSetting& setting, bool tensor, int largest) const {
  Family family{setting, tensor, largest, tensor ? buffer_mb(instance_, setting, largest) : 0, {}, {}, kNoCost};
  for (int stage = 0; stage < setting.pp; ++stage) {
    std::vector<GalvatronLayerOption> options;
    for (const GalvatronStrategy& strategy : list_strategies(instance_, setting, true)) {
      if (degree(strategy) > largest || (strategy.tp > 1 && !tensor)) continue;
      const auto free = layer_ms(instance_, setting, strategy, false),
                 sync = layer_ms(instance_, setting, strategy, true);
      const auto memory = layer_mb(instance_, setting, strategy, stage);
      if (free && sync && memory)
        options.push_back({strategy, degree(strategy), to_ticks(*free), to_ticks(*sync), *memory});
    }
    family.options.push_back(undominated(options));
    if (family.options.back().empty()) return std::nullopt;
  }
  for (int larger = 2; larger <= largest; larger *= 2) {
    if (const auto change = resharding_ms(instance_, setting, 1, larger)) {
      family.resharding[larger] = to_ticks(*change);
      family.least_resharding = std::min(family.least_resharding, to_ticks(*change));
    }
  }
  return family;
}

std::optional<Ends> Search::make_ends(const Family& family, const GalvatronStrategy& strategy) const {
  Ends ends{strategy, {}, {}};
  for (int stage = 0; stage < family.setting.pp; ++stage) {
    const auto free = end_ms(instance_, family.setting, strategy, stage);
    const auto memory = end_mb(instance_, family.setting, strategy, stage);
    if (!free || !memory || *memory + family.buffer > budget_) return std::nullopt;
    ends.free.push_back(to_ticks(*free));
    ends.capacity.push_back(budget_ - *memory - family.buffer);
  }
  return ends;
}

StageBounds Search::stage_bounds(const Family& family, const Ends& ends) const {
  StageBounds bounds;
  const auto num_layers = static_cast<std::size_t>(instance_.layers);
  for (std::size_t stage = 0; stage < family.options.size(); ++stage) {
    std::map<int, std::vector<std::pair<std::int64_t, Cost>>> points;  // by degree, 0 for all
    for (const GalvatronLayerOption& option : family.options[stage]) {
      points[option.degree].emplace_back(option.memory, option.free);
      points[0].emplace_back(option.memory, option.free);
    }
    bounds.pure.emplace_back(num_layers + 1, kNoCost);
    bounds.mixed.emplace_back(num_layers + 1, kNoCost);
    for (auto& [degree, list] : points) {
      const GalvatronHull hull(std::move(list));
      std::vector<Cost>& row = degree == 0 ? bounds.mixed.back() : bounds.pure.back();
      for (std::size_t n = 1; n <= num_layers; ++n) {
        const Cost least = hull.least(static_cast<std::int64_t>(n), ends.capacity[stage]);
        if (least != kNoCost) row[n] = std::min(row[n], least + ends.free[stage]);
      }
    }
  }
  return bounds;
}

void Search::list_candidates(std::size_t f) {
  const GalvatronSetting setting = families_[f].setting;
  for (const GalvatronStrategy& strategy : list_strategies(instance_, setting, false)) {
    if (degree(strategy) > families_[f].largest && families_[f].tensor) continue;
    if (strategy.tp > 1 && !families_[f].tensor) continue;
    const auto ends = make_ends(families_[f], strategy);
    if (!ends) continue;
    const StageBounds bounds = stage_bounds(families_[f], *ends);
    const int layers = instance_.layers, pp = setting.pp, inner = pp - 2;
    std::vector<int> even(static_cast<std::size_t>(pp), layers / pp);
    even.back() += layers % pp;
    add_candidate(f, *ends, bounds, even, pp > 1);
    if (pp == 1) continue;
    for (int first = 1; first <= layers - pp + 1; ++first) {
      for (int last = 1; last <= layers - first - inner; ++last) {
        const int rest = layers - first - last;
        if (inner == 0 && rest > 0) continue;
        std::vector<int> split{first};
        for (int i = 0; i < inner; ++i) split.push_back(rest / inner + (i >= inner - rest % inner ? 1 : 0));
        split.push_back(last);
        add_candidate(f, *ends, bounds, std::move(split), false);
      }
    }
  }
}

/// Either every stage keeps one degree, or at least one change is paid.
void Search::add_candidate(std::size_t f, const Ends& ends, const StageBounds& bounds, std::vector<int> split,
                           bool peer_split) {
  const Family& family = families_[f];
  Candidate candidate{kNoCost, f, ends.strategy, std::move(split), peer_split, {}};
  for (const bool mixed : {false, true}) {
    std::vector<Cost> stages;
    for (std::size_t i = 0; i < candidate.split.size(); ++i) {
      const auto layers = static_cast<std::size_t>(candidate.split[i]);
      stages.push_back((mixed ? bounds.mixed : bounds.pure)[i][layers]);
      if (stages.back() == kNoCost) break;
    }
    if (stages.back() == kNoCost || (mixed && family.least_resharding == kNoCost)) continue;
    const Cost slowest = *std::max_element(stages.begin(), stages.end());
    const Cost bound =
        pipeline_cost(family.setting, peer_split, sum_of(stages), stages.front(), stages.back(), slowest) +
        (mixed ? family.setting.chunks * family.least_resharding : 0);
    candidate.bound = std::min(candidate.bound, bound);
    candidate.stage_bounds = std::move(stages);
  }
  if (candidate.bound >= incumbent_) return;
  // Rounded plans without a pipeline are cheap, and leave less of the rest to list.
  if (family.setting.pp == 1) round(candidate);
  candidates_.push_back(std::move(candidate));
}

std::vector<GalvatronStage> Search::make_stages(const Candidate& candidate) const {
  const Family& family = families_[candidate.family];
  const auto ends = make_ends(family, candidate.embedding);
  std::vector<GalvatronStage> stages;
  for (std::size_t i = 0; i < candidate.split.size(); ++i) {
    stages.push_back({family.options[i], candidate.split[i], ends->capacity[i], ends->free[i], family.resharding,
                      family.setting.chunks, stage_charges(family.setting, candidate, i), incumbent_});
  }
  return stages;
}

void Search::round(const Candidate& candidate) {
  std::vector<std::vector<GalvatronChoice>> choices;
  for (const GalvatronStage& stage : make_stages(candidate)) {
    choices.push_back({round_stage(stage)});
    if (choices.back().front().options.empty()) return;
  }
  join(candidate, choices);
}

void Search::solve(const Candidate& candidate) {
  if (candidate.bound >= incumbent_) return;
  std::vector<std::vector<GalvatronChoice>> choices;
  for (const GalvatronStage& stage : make_stages(candidate)) {
    choices.push_back(find_stage_choices(stage, num_labels_));
    if (choices.back().empty()) return;
  }
  join(candidate, choices);
}

void Search::join(const Candidate& candidate, const std::vector<std::vector<GalvatronChoice>>& choices) {
  const Family& family = families_[candidate.family];
  JoinProblem problem(family, candidate.peer_split, choices);
  SearchLimits limits;
  limits.upper_bound = incumbent_;
  const auto found = search_labels(problem, limits);
  num_labels_ += found.num_labels;
  if (found.best.empty()) return;
  incumbent_ = found.best.front().cost;
  best_ = {family.setting.pp, family.setting.chunks, candidate.split, {}, candidate.embedding};
  for (std::size_t stage = 0; stage < choices.size(); ++stage) {
    const auto choice = static_cast<std::size_t>(found.best.front().path[stage].choice);
    for (const int option : choices[stage][choice].options)
      best_.layers.push_back(family.options[stage][static_cast<std::size_t>(option)].strategy);
  }
}

}  // namespace

std::optional<GalvatronFound> search_galvatron(const GalvatronInstance& instance) { return Search(instance).run(); }

}  // namespace coxswain::planner
