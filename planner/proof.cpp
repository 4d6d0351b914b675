#include "planner/proof.h"

#include <algorithm>
#include <memory>
#include <queue>

namespace coxswain::planner {
namespace {

/// The stages of one combination, and what goes on from there.
struct Branch {
  std::unique_ptr<StageCosts> costs;
  std::unique_ptr<PipelineProblem> problem;
};

/// Cuts and devices are chosen first, from the loss side, each stage at the least that any of its choices costs; then,
/// in the same order, a choice for each.
struct Node {
  Cost bound = 0;
  std::size_t combination = 0;
  PipelineProblem::State state;
  PipelineProblem::Label label;
  PipelineProblem::Option option;
  std::int64_t parent = -1;
  std::int64_t shape = -1;  // the node that places the first stage; -1: cuts are still open
};
using Path = std::vector<PipelineProblem::Option>;

class Prover {
 public:
  Prover(const SearchSpace& space, const std::vector<Combination>& combinations, Cost best, const ProofLimits& limits,
         const std::function<std::optional<Cost>(const Candidate&)>& simulate)
      : space_(space),
        combinations_(combinations),
        limits_(limits),
        simulate_(simulate),
        best_(best),
        branches_(combinations.size()) {
    ordered_ = limits.only_find || !may_gain_from_waiting(space);
  }

  Proof run() {
    for (std::size_t c = 0; c < combinations_.size(); ++c) {
      if (combinations_[c].bound >= best_) continue;
      Node root;
      root.bound = combinations_[c].bound;
      root.combination = c;
      root.state.block = space_.spans->num_blocks();
      root.state.remaining = space_.devices;
      add(std::move(root));
    }
    while (!queue_.empty() && queue_.top().bound < best_) {
      if (proof_.labels >= limits_.labels || actions_ >= limits_.actions) {
        proof_.lower_bound = queue_.top().bound;
        return proof_;
      }
      const std::int64_t at = queue_.top().node;
      queue_.pop();
      const Node node = nodes_[static_cast<std::size_t>(at)];
      if (node.shape < 0 && node.state.block > 0)
        place_stage(node, at);
      else
        choose(node, at);
    }
    proof_.complete = true;
    proof_.lower_bound = best_;
    return proof_;
  }

 private:
  struct Entry {
    Cost bound = 0;
    std::int64_t node = 0;
    // The queue's top is the greatest: least bound, then found last.
    friend bool operator<(const Entry& a, const Entry& b) {
      return a.bound != b.bound ? a.bound > b.bound : a.node < b.node;
    }
  };

  void add(Node node) {
    queue_.push({node.bound, static_cast<std::int64_t>(nodes_.size())});
    nodes_.push_back(std::move(node));
    ++proof_.labels;
  }

  PipelineProblem& problem(std::size_t c) {
    Branch& branch = branches_[c];
    if (!branch.problem) {
      StageContext context = make_stage_context(space_, combinations_[c]);
      context.exhaustive = true;
      context.ordered = ordered_;
      context.at_most = best_;
      branch.costs = std::make_unique<StageCosts>(std::move(context));
      branch.problem = std::make_unique<PipelineProblem>(*branch.costs, *combinations_[c].work,
                                                         make_pipeline_shape(space_, combinations_[c]), best_);
    }
    return *branch.problem;
  }

  void place_stage(const Node& node, std::int64_t at) {
    PipelineProblem& problem = this->problem(node.combination);
    problem.for_each_option(node.state, [&](const PipelineProblem::Option& option) {
      const auto next = problem.extend(node.state, node.label, option);
      if (!next) return;
      const Cost bound = std::max(node.bound, problem.bound(next->first, next->second));
      if (bound < best_) add({bound, node.combination, next->first, next->second, option, at, -1});
    });
  }

  /// The next stage of a pipeline whose cuts are known; of the last one the step.
  void choose(const Node& from, std::int64_t at) {
    const std::int64_t shape = from.shape < 0 ? at : from.shape;
    const Path path = path_to(shape);
    PipelineProblem& problem = this->problem(from.combination);
    auto [state, label] = problem.start();
    std::size_t chosen = 0;
    if (from.shape >= 0) {
      state = from.state;
      label = from.label;
      chosen = static_cast<std::size_t>(state.num_stages);
    }
    if (chosen == path.size()) {
      simulate(from, path_to(at));
      return;
    }
    const PipelineProblem::Option& open = path[chosen];
    const StageChoices& choices =
        problem.costs().stage(open.first, state.block, open.composition, problem.place(state.num_stages));
    for (const StageCost& choice : choices.fitting) {
      const PipelineProblem::Option option{open.first, open.composition, &choice};
      const auto next = problem.extend(state, label, option);
      std::optional<std::pair<PipelineProblem::State, PipelineProblem::Label>> end = next;
      for (std::size_t later = chosen + 1; later < path.size() && end; ++later)
        end = problem.extend(end->first, end->second, path[later]);
      if (!end) continue;
      const Cost bound = std::max(from.bound, problem.finish(end->first, end->second));
      // The first choice hangs on nothing: its stages are those of `path`.
      if (bound < best_)
        add({bound, from.combination, next->first, next->second, option, from.shape < 0 ? -1 : at, shape});
    }
  }

  [[nodiscard]] Path path_to(std::int64_t at) const {
    Path path;
    for (std::int64_t from = at; from >= 0; from = nodes_[static_cast<std::size_t>(from)].parent) {
      const Node& node = nodes_[static_cast<std::size_t>(from)];
      if (node.option.stage != nullptr) path.push_back(node.option);
    }
    std::reverse(path.begin(), path.end());
    return path;
  }

  void simulate(const Node& node, const Path& path) {
    const Candidate candidate = make_candidate(space_, combinations_[node.combination], path, node.bound);
    for (const CandidateStage& stage : candidate.stages)
      actions_ += candidate.count * static_cast<std::int64_t>(stage.shares.size());
    ++proof_.simulated;
    const std::optional<Cost> step = simulate_(candidate);
    if (step) best_ = std::min(best_, *step);
  }

  const SearchSpace& space_;
  const std::vector<Combination>& combinations_;
  ProofLimits limits_;
  const std::function<std::optional<Cost>(const Candidate&)>& simulate_;
  Cost best_;
  bool ordered_ = true;
  std::vector<Branch> branches_;
  std::vector<Node> nodes_;
  std::priority_queue<Entry> queue_;
  std::int64_t actions_ = 0;
  Proof proof_;
};

}  // namespace

bool may_gain_from_waiting(const SearchSpace& space) {
  const auto& classes = space.spans->cost().resources().device_classes;
  return std::any_of(space.pools.begin(), space.pools.end(), [&](const Pool& pool) {
    return classes[static_cast<std::size_t>(pool.device_class)].kind == cluster::DeviceKind::Cpu;
  });
}

Proof prove(const SearchSpace& space, const std::vector<Combination>& combinations, Cost best,
            const ProofLimits& limits, const std::function<std::optional<Cost>(const Candidate&)>& simulate) {
  return Prover(space, combinations, best, limits, simulate).run();
}

}  // namespace coxswain::planner
