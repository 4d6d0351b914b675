#include "worker/engine/chunk.h"

#include <algorithm>

#include "common/ensure.h"
#include "plan/schedule.h"

namespace coxswain::worker {
namespace {

using model::ValueId;
using plan::Action;
using plan::ActionKind;

class ChunkMaker {
 public:
  ChunkMaker(const LocalView& view, const plan::Plan& plan, const std::vector<plan::Group>& groups, int rank)
      : view_(view), plan_(plan), groups_(groups), rank_(rank), place_(plan::place_of(plan, rank)) {}

  Result<Chunk> make(int index, const WeightSource& weights, const ExpertTokens& tokens, ParameterStore& store) const {
    const plan::Stage& stage = plan_.stages[place_.stage];
    Chunk chunk;
    chunk.run = plan::run_of(stage, index);
    LoweringOptions lowering{
        chunk.run.first_block, chunk.run.end_block,          stage.replicas[place_.replica].samples, {},
        plan_.precision,       view_.part ? &view_ : nullptr};
    for (int b = chunk.run.first_block; b < chunk.run.end_block; ++b)
      lowering.recompute.push_back(stage.recompute[plan::position_of(stage, b)]);
    lowering.offload_activations = stage.offload == plan::Offload::Activations;
    lowering.tokens = &tokens;
    COX_TRY(chunk.runner, StageRunner::make(view_.graph(), lowering, weights, store));
    const model::StageSlice& slice = chunk.runner->stage().slice;
    chunk.activation_out = edge(slice.sent, ActionKind::SendActivation, index);
    chunk.gradient_in = edge(with_gradient(slice.sent), ActionKind::ReceiveGradient, index);
    chunk.activation_in = edge(slice.received, ActionKind::ReceiveActivation, index);
    chunk.gradient_out = edge(with_gradient(slice.received), ActionKind::SendGradient, index);
    const int part = plan::part_of(plan_, place_.stage, index);
    if (!plan::has_edge_in(plan_, place_.stage, index)) chunk.before = chunk_of(part - 1);
    if (!plan::has_edge_out(plan_, place_.stage, index)) chunk.after = chunk_of(part + 1);
    return chunk;
  }

 private:
  /// -1 where there is no such part.
  [[nodiscard]] int chunk_of(int part) const {
    if (part < 0 || part >= plan::num_parts(plan_)) return -1;
    return plan::place_of_part(plan_.schedule, part, static_cast<int>(plan_.stages.size())).chunk;
  }

  [[nodiscard]] std::vector<ValueId> with_gradient(const std::vector<ValueId>& values) const {
    std::vector<ValueId> result;
    std::copy_if(values.begin(), values.end(), std::back_inserter(result),
                 [&](ValueId v) { return view_.whole->values[v].requires_grad; });
    return result;
  }

  [[nodiscard]] EdgeSpec edge(std::vector<ValueId> values, ActionKind kind, int chunk) const {
    const Action action{kind, 0, -1, -1, -1, chunk};
    EdgeSpec edge;
    edge.values = std::move(values);
    const auto between = plan::edge_of(plan_, place_.stage, action);
    edge.exists = between.has_value();
    if (!between) return edge;
    for (const ValueId v : edge.values)
      edge.sizes.push_back(sizes_of(view_.graph(), v, plan_.stages[place_.stage].replicas[place_.replica].samples));
    const bool makes = kind == ActionKind::SendActivation || kind == ActionKind::ReceiveGradient;
    const int other = makes ? between->to : between->from;
    edge.pieces = edge_pieces(*view_.whole, plan_, edge.values, rank_, other, makes);
    for (std::size_t v = 0; v < edge.values.size(); ++v)
      edge.whole.push_back(covers_once(edge.pieces, v, edge.sizes[v]) ? 1 : 0);
    const int group = plan::group_of(plan_, groups_, place_.stage, action);
    COX_ENSURE(group >= 0);
    for (EdgePiece& piece : edge.pieces) {
      const auto& ranks = groups_[group].ranks;
      const auto found = std::find(ranks.begin(), ranks.end(), piece.peer);
      COX_ENSURE(found != ranks.end(), piece.peer);
      piece.peer = static_cast<int>(found - ranks.begin());
    }
    return edge;
  }

  const LocalView& view_;
  const plan::Plan& plan_;
  const std::vector<plan::Group>& groups_;
  const int rank_;
  const plan::RankPlace place_;
};

}  // namespace

Result<std::vector<Chunk>> make_chunks(const LocalView& view, const plan::Plan& plan,
                                       const std::vector<plan::Group>& groups, int rank, const WeightSource& weights,
                                       const ExpertTokens& tokens, ParameterStore& store) {
  const ChunkMaker maker(view, plan, groups, rank);
  std::vector<Chunk> chunks;
  for (int c = 0; c < plan::num_chunks(plan.stages[plan::place_of(plan, rank).stage]); ++c) {
    COX_TRY(Chunk chunk, maker.make(c, weights, tokens, store));
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

std::set<std::pair<int, int>> find_whole_backwards(const plan::Plan& plan, int rank, const std::vector<Chunk>& chunks) {
  const plan::RankPlace place = plan::place_of(plan, rank);
  std::set<std::pair<int, int>> whole;
  for (const plan::Role& role : plan.roles) {
    if (role.stage != place.stage || std::count(role.replicas.begin(), role.replicas.end(), place.replica) == 0)
      continue;
    for (int c = 0; c < static_cast<int>(chunks.size()); ++c) {
      if (chunks[c].gradient_out.exists || chunks[c].before >= 0) continue;
      for (const int micro_batch : plan::find_whole_backwards(role.actions, c)) whole.emplace(c, micro_batch);
    }
  }
  return whole;
}

}  // namespace coxswain::worker
