#include "worker/engine/saved_state.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <span>

#include "common/ensure.h"
#include "plan/layout/held_rows.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

using checkpoint::Piece;

/// All that the mesh gives this rank of a parameter.
Piece part_of(const model::Parameter& parameter, const LocalView& view) {
  Piece piece{parameter.name, parameter.dims, {}, 0, 1};
  const auto cuts = view.cuts_of(parameter.value);
  if (cuts.empty()) return checkpoint::whole_piece(parameter.name, parameter.dims);
  for (const auto& rows : plan::held_rows(parameter.dims, cuts)) {
    piece.rows.push_back(plan::runs_of_rows(rows));
    piece.count *= static_cast<std::int64_t>(rows.size());
  }
  return piece;
}

// That this rank holds a part of; -1: none.
int find_parameter(const model::ModelGraph& graph, const ParameterStore& store, const std::string& name) {
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
    const model::Parameter& parameter = graph.parameters[p];
    const bool named =
        parameter.name == name || std::count(parameter.tied_names.begin(), parameter.tied_names.end(), name) > 0;
    if (named && store.has(static_cast<int>(p))) return static_cast<int>(p);
  }
  return -1;
}

std::span<float> span_of(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace

std::vector<float> copy_of(const at::Tensor& values) {
  const float* data = values.const_data_ptr<float>();
  return {data, data + values.numel()};
}

Result<ParameterPart> read_part(const model::ModelGraph& graph, const LocalView& view, const ParameterStore& store,
                                const std::string& name) {
  const int p = find_parameter(graph, store, name);
  if (p < 0) return Error{ErrorCode::NotFound, "this rank holds no such parameter", name, "", "", ""};
  const model::Parameter& parameter = graph.parameters[p];
  const StateOfParameter state = store.state_of(p);
  return ParameterPart{copy_of(state.values), plan::held_rows(parameter.dims, view.cuts_of(parameter.value)),
                       state.first};
}

Result<std::vector<float>> read_parameter(const model::ModelGraph& graph, const LocalView& view,
                                          const ParameterStore& store, const std::string& name) {
  COX_TRY(ParameterPart part, read_part(graph, view, store, name));
  const std::int64_t count = checkpoint::num_elements(graph.parameters[find_parameter(graph, store, name)].dims);
  if (static_cast<std::int64_t>(part.values.size()) != count)
    return Error{ErrorCode::FailedPrecondition, "this rank holds a part of the parameter", name, "", "", "read_part"};
  return std::move(part.values);
}

std::vector<Piece> pieces_of(const model::ModelGraph& graph, const LocalView& view, const ParameterStore& store) {
  std::vector<Piece> pieces;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
    if (!store.has(static_cast<int>(p))) continue;
    const StateOfParameter state = store.state_of(static_cast<int>(p));
    Piece piece = part_of(graph.parameters[p], view);
    piece.first = state.first;
    piece.count = state.values.numel();
    if (piece.count > 0) pieces.push_back(std::move(piece));
  }
  return pieces;
}

std::vector<Piece> held_pieces_of(const model::ModelGraph& graph, const LocalView& view, const ParameterStore& store) {
  std::vector<Piece> pieces;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p)
    if (store.has(static_cast<int>(p))) pieces.push_back(part_of(graph.parameters[p], view));
  return pieces;
}

std::vector<checkpoint::PieceState> copy_state(const model::ModelGraph& graph, const ParameterStore& store,
                                               const std::vector<Piece>& pieces) {
  std::map<std::string, int> indices;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) indices[graph.parameters[p].name] = static_cast<int>(p);
  std::vector<checkpoint::PieceState> states;
  for (const Piece& piece : pieces) {
    const StateOfParameter state = store.state_of(indices.at(piece.parameter));
    COX_ENSURE(state.first == piece.first && state.values.numel() == piece.count, piece.parameter);
    states.push_back({piece, {copy_of(state.values), copy_of(state.first_moment), copy_of(state.second_moment)}});
  }
  return states;
}

std::vector<checkpoint::PieceView> view_state(const model::ModelGraph& graph, const LocalView& view,
                                              const ParameterStore& store, std::vector<at::Tensor>& keeps) {
  std::map<std::string, int> indices;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) indices[graph.parameters[p].name] = static_cast<int>(p);
  std::vector<checkpoint::PieceView> views;
  for (Piece& piece : pieces_of(graph, view, store)) {
    const StateOfParameter state = store.state_of(indices.at(piece.parameter));
    checkpoint::PieceView seen{std::move(piece), {}};
    const std::array<const at::Tensor*, checkpoint::kStates.size()> tensors{&state.values, &state.first_moment,
                                                                            &state.second_moment};
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      seen.elements[i] = tensors[i]->const_data_ptr<float>();
      keeps.push_back(*tensors[i]);
    }
    views.push_back(std::move(seen));
  }
  return views;
}

Result<void> load_state(const model::ModelGraph& graph, const LocalView& view, ParameterStore& store,
                        const checkpoint::Reader& reader) {
  const at::NoGradGuard no_grad;
  for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
    const int index = static_cast<int>(p);
    if (!store.has(index)) continue;
    Piece piece = part_of(graph.parameters[p], view);
    // What is computed with is all of the part, also where other ranks update most of it.
    const at::Tensor values = at::empty({piece.count}, options_of(DType::Float32));
    COX_TRY_VOID(reader.read(checkpoint::State::Values, piece, span_of(values)));
    store.set_values(index, values);
    const StateOfParameter state = store.state_of(index);
    piece.first = state.first;
    piece.count = state.values.numel();
    COX_TRY_VOID(reader.read(checkpoint::State::FirstMoment, piece, span_of(state.first_moment)));
    COX_TRY_VOID(reader.read(checkpoint::State::SecondMoment, piece, span_of(state.second_moment)));
  }
  store.finish_values();
  return {};
}

}  // namespace coxswain::worker
