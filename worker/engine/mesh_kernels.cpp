// Operators of the mesh that are not transitions, from their arguments to their kernels.
#include "worker/engine/mesh_kernels.h"

#include <ATen/core/Tensor.h>

#include <utility>

#include "worker/engine/op_call.h"
#include "worker/engine/parallel_cross_entropy.h"
#include "worker/engine/ring_attention.h"

namespace coxswain::worker {

at::Tensor mesh_cross_entropy(const MeshCall& call) {
  CrossEntropyArguments arguments;
  arguments.logits = call.tensor("self");
  arguments.target = call.tensor("target");
  arguments.runs = call.integers("runs");
  arguments.reduction = call.integer("reduction");
  arguments.ignore_index = call.integer("ignore_index");
  arguments.label_smoothing = call.number("label_smoothing").value_or(0);
  return parallel_cross_entropy(arguments, link_of(call));
}

at::Tensor mesh_ring_attention(const MeshCall& call) {
  RingAttentionArguments arguments;
  arguments.query = call.tensor("query");
  arguments.key = call.tensor("key");
  arguments.value = call.tensor("value");
  arguments.mask = call.tensor("attn_mask");
  arguments.runs = call.integers("runs");
  arguments.is_causal = call.flag("is_causal");
  arguments.scale = call.number("scale");
  arguments.enable_gqa = call.flag("enable_gqa");
  const double probability = call.mode().dropout ? call.number("dropout_p").value_or(0) : 0;
  arguments.place = call.place();
  arguments.place.first_sample = call.mode().first_sample;
  if (probability > 0)
    arguments.stream = make_dropout_stream(call.mode().seed, call.mode().step, call.whole_op(), probability);
  // Rows are those of `runs`; what else the query has a part of is its heads.
  if (const auto part = std::exchange(arguments.place.part, nullptr); part && part->sizes.size() == 4) {
    arguments.first_head = part->rows[1].empty() ? 0 : part->rows[1].front();
    arguments.num_heads = part->sizes[1];
  }
  return ring_attention(arguments, link_of(call));
}

}  // namespace coxswain::worker
