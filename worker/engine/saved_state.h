#pragma once
// A rank's parameters and moments as pieces of a checkpoint, and back. Called by engine. Threads: the engine's one.
// Private to worker/engine. Source: DESIGN 3.9, docs/checkpoint.md.
#include <vector>

#include "checkpoint/reader.h"
#include "checkpoint/shard.h"
#include "model/model_graph.h"
#include "worker/engine/engine.h"
#include "worker/engine/mesh_link.h"
#include "worker/engine/parameter_store.h"

namespace coxswain::worker {

[[nodiscard]] std::vector<float> copy_of(const at::Tensor& values);

/// As Engine::read_part and read_parameter.
[[nodiscard]] Result<ParameterPart> read_part(const model::ModelGraph& graph, const LocalView& view,
                                              const ParameterStore& store, const std::string& name);
[[nodiscard]] Result<std::vector<float>> read_parameter(const model::ModelGraph& graph, const LocalView& view,
                                                        const ParameterStore& store, const std::string& name);

/// By parameter what this rank updates; none where that is nothing. `graph`: the whole model's.
[[nodiscard]] std::vector<checkpoint::Piece> pieces_of(const model::ModelGraph& graph, const LocalView& view,
                                                       const ParameterStore& store);
/// By parameter what this rank computes with: what load_state reads.
[[nodiscard]] std::vector<checkpoint::Piece> held_pieces_of(const model::ModelGraph& graph, const LocalView& view,
                                                            const ParameterStore& store);
/// Requires: `pieces` are of pieces_of.
[[nodiscard]] std::vector<checkpoint::PieceState> copy_state(const model::ModelGraph& graph,
                                                             const ParameterStore& store,
                                                             const std::vector<checkpoint::Piece>& pieces);
/// Of all of pieces_of. `keeps` gets what has to live as long as the views.
[[nodiscard]] std::vector<checkpoint::PieceView> view_state(const model::ModelGraph& graph, const LocalView& view,
                                                            const ParameterStore& store,
                                                            std::vector<at::Tensor>& keeps);
/// Errors: of Reader::read.
[[nodiscard]] Result<void> load_state(const model::ModelGraph& graph, const LocalView& view, ParameterStore& store,
                                      const checkpoint::Reader& reader);

}  // namespace coxswain::worker
