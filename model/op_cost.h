#pragma once
// FLOPs, bytes and saved tensors of each operator and block, from shapes alone. Called by cost_model/ and `model show`.
// Threads: pure. Source: docs/cost_model.md, C1-C3.
#include <string>
#include <string_view>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

enum class OpClass {
  Matmul,
  Attention,
  Normalisation,
  Softmax,
  Pointwise,
  Reduction,
  Index,
  Convolution,
  View,
  Factory,
  Transition,  // a collective of a local graph
  Other
};

struct OpCost {
  OpClass op_class = OpClass::Other;
  Flop forward_flop{0};
  Flop backward_input_flop{0};   // gradient of activations
  Flop backward_weight_flop{0};  // gradient of parameters
  Bytes forward_bytes{0};        // read + written
  Bytes backward_bytes{0};
  Bytes table_bytes{0};  // of the forward bytes: experts' tables, read whole; the backward moves them twice
};
/// How products with chosen experts run: each row's matrix gathered first, as the archive says, or grouped by expert,
/// which reads each table once and keeps no gathered matrix (Gale et al. 2022), as accelerators and our engine do.
enum class ExpertForm { Gathered, Grouped };
/// What activations are stored in: as exported, or in 16 bits where the mixed-precision table says so.
enum class Width { Stored, Mixed };
[[nodiscard]] OpCost estimate_op_cost(const ModelGraph& graph, OpId op, std::int64_t samples);

/// Values (by id, views resolved to their base) whose storage the backward of `op` keeps, parameters excluded.
[[nodiscard]] std::vector<ValueId> saved_values(const ModelGraph& graph, OpId op);
/// Bytes that the backward of `op` keeps beyond graph values: statistics of norms, dropout masks, softmax results
/// inside composite operators, copies made of values that lie badly.
[[nodiscard]] Bytes saved_hidden_bytes(const ModelGraph& graph, OpId op, std::int64_t samples);
/// False: the conservative default was used (reads and writes everything, keeps every floating-point input).
[[nodiscard]] bool has_cost_rule(const Op& op);
[[nodiscard]] std::string_view to_text(OpClass op_class);
/// The value that owns the storage of `value` (follows view operators).
[[nodiscard]] ValueId storage_of(const ModelGraph& graph, ValueId value);

struct BlockTotals {
  std::int64_t num_ops = 0;
  Flop forward_flop{0}, backward_input_flop{0}, backward_weight_flop{0};
  Flop matmul_flop{0};       // forward, matmul-like only
  Bytes parameter_bytes{0};  // of parameters first used in this block
  std::int64_t parameter_elements = 0;
  Bytes input_bytes{0};      // of saved_bytes: inputs of the model, which a micro-batch keeps whatever is recomputed
  Bytes saved_bytes{0};      // kept from forward to backward, without recompute; includes its received cut once
  Bytes transient_bytes{0};  // peak above saved while running forward or backward of this block
  /// The two apart, and that of a forward without graph, above what the block receives.
  Bytes forward_transient_bytes{0}, backward_transient_bytes{0}, plain_transient_bytes{0};
  /// C15, of a split backward: kept between I and W, the peak of I above saved, that of W above owed.
  Bytes owed_bytes{0}, input_transient_bytes{0}, weight_transient_bytes{0};
  /// Parameter-free values made outside this block (masks, rotary tables) that its backward keeps. Blocks of one stage
  /// share them: a stage adds the largest of its blocks once.
  Bytes shared_bytes{0};
  Bytes cut_bytes{0};       // live values at the block's end
  Bytes received_bytes{0};  // live values at the block's start
  /// C31: kept where what contracts no parameter runs again in backward (fused attention does not); at most
  /// saved_bytes.
  Bytes selective_bytes{0};
  std::vector<int> replayed;  // operators that then run again, counted from the block's first
  Bytes expert_bytes{0};      // of saved_bytes: made on the way through the experts (C32)
};
/// One OpCost per operator of the block, in one pass (estimate_op_cost per operator is slower).
[[nodiscard]] std::vector<OpCost> estimate_op_costs(const ModelGraph& graph, int block, std::int64_t samples,
                                                    ExpertForm experts = ExpertForm::Gathered);
[[nodiscard]] BlockTotals estimate_block(const ModelGraph& graph, int block, std::int64_t samples,
                                         ExpertForm experts = ExpertForm::Gathered, Width width = Width::Stored);

}  // namespace coxswain::model
