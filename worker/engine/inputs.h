#pragma once
// The tensors that a graph's inputs take: tokens and targets out of a text, by the names of the inputs; or given ones
// (the recorded step); or made-up ones of the right kind (profile without data). Called by engine, profile, check.
// Threads: the engine's one. Private to worker/engine. Source: DESIGN 3.7, Data.
#include <ATen/core/TensorBody.h>

#include <functional>
#include <optional>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "worker/engine/text_data.h"

namespace coxswain::worker {

/// What an input takes from a window of sequence + 1 bytes.
enum class InputRole { Tokens, Targets, Ones, Positions };

/// By name: tokens, input_ids -> window[0, s); targets -> window[1, s + 1); labels -> window[0, s) (such models shift
/// inside); attention_mask -> ones; position_ids -> 0, 1, ...  Two inputs of other names: tokens, then targets. Errors:
/// InvalidArgument (a name it does not know, not int64, a length that is not the sequence length).
[[nodiscard]] Result<std::vector<InputRole>> input_roles(const model::ModelGraph& graph, std::int64_t sequence_length);

/// One tensor from the windows of `samples` consecutive samples; `window(i)` gives the bytes of the i-th.
[[nodiscard]] at::Tensor make_text_input(InputRole role, std::int64_t samples, std::int64_t sequence_length,
                                         const std::function<const unsigned char*(std::int64_t)>& window);

/// Small integers (0 and 1) or normal numbers of the input's shape.
[[nodiscard]] at::Tensor make_up_value(const model::ModelGraph& graph, model::ValueId value, std::int64_t samples);

}  // namespace coxswain::worker
