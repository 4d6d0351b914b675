// Mixture of experts as transformers 5 holds it: a softmax router, and all experts' projections in two tensors. Each
// (token, chosen expert) pair gathers its expert's weights and is one small product, so that no shape depends on what
// the router decides, and only the chosen experts' work is done.
#include "model/build_decoder.h"

namespace coxswain::model {
namespace {

ValueId gather(GraphBuilder& b, ValueId table, ValueId indices) {
  std::vector<Dim> dims = b.dims(table);
  dims[0] = b.dims(indices)[0];
  const std::vector<std::optional<ValueRef>> list{ValueRef{indices}};
  return b.emit("aten::index.Tensor", {{"self", ValueRef{table}}, {"indices", list}}, std::move(dims));
}

/// One matrix a row: (rows, out, in) x (rows, in) -> (rows, out)
ValueId product_by_row(GraphBuilder& b, ValueId matrices, ValueId x) {
  const ValueId columns = b.unsqueeze(x, 2);
  const ValueId out = b.emit("aten::bmm", {{"self", ValueRef{matrices}}, {"mat2", ValueRef{columns}}},
                             {b.dims(matrices)[0], b.dims(matrices)[1], Dim(1)});
  return b.squeeze(out, 2);
}

struct Choice {
  ValueId logits, weights, experts;  // weights, experts: (tokens, chosen)
};

Choice choose(GraphBuilder& b, const ExpertConfig& experts, const std::string& path, ValueId x) {
  b.enter(path);
  const ValueId weight = b.parameter(path + ".weight", {experts.count, b.dims(x).back().constant()}, "normal");
  const ValueId logits = b.linear(x, weight);
  const ValueId probabilities =
      b.emit_like("aten::softmax.int", {{"self", ValueRef{logits}}, {"dim", Dim(-1)}}, logits);
  const std::vector<Dim> chosen{b.dims(x)[0], Dim(experts.chosen)};
  const auto top = b.emit_several("aten::topk", {{"self", ValueRef{probabilities}}, {"k", Dim(experts.chosen)}},
                                  {{chosen, DType::Float32}, {chosen, DType::Int64}});
  if (!experts.normalised) return {logits, top[0], top[1]};
  const ValueId sum =
      b.emit("aten::sum.dim_IntList",
             {{"self", ValueRef{top[0]}}, {"dim", std::vector<Dim>{Dim(-1)}}, {"keepdim", true}}, {chosen[0], Dim(1)});
  return {logits, b.emit_like("aten::div.Tensor", {{"self", ValueRef{top[0]}}, {"other", ValueRef{sum}}}, top[0]),
          top[1]};
}

}  // namespace

MixtureOutputs build_mixture(GraphBuilder& b, const DecoderConfig& c, const std::string& path, ValueId x) {
  const ExpertConfig& experts = c.experts;
  const Dim tokens = b.rows(), pairs = tokens * Dim(experts.chosen);
  b.enter(path);
  const ValueId flat = b.view(x, {tokens, Dim(c.width)});
  const Choice choice = choose(b, experts, path + ".gate", flat);
  b.enter(path + ".experts");
  const ValueId gate_up =
      b.parameter(path + ".experts.gate_up_proj", {experts.count, 2 * experts.inner, c.width}, "normal");
  const ValueId down = b.parameter(path + ".experts.down_proj", {experts.count, c.width, experts.inner}, "residual");
  const ValueId repeated =
      b.emit("aten::repeat_interleave.self_int",
             {{"self", ValueRef{flat}}, {"repeats", Dim(experts.chosen)}, {"dim", Dim(0)}}, {pairs, Dim(c.width)});
  const ValueId weights = b.reshape(choice.weights, {pairs}), indices = b.reshape(choice.experts, {pairs});
  const ValueId both = product_by_row(b, gather(b, gate_up, indices), repeated);
  const std::vector<Dim> half{pairs, Dim(experts.inner)};
  const auto halves = b.emit_several("aten::chunk", {{"self", ValueRef{both}}, {"chunks", Dim(2)}, {"dim", Dim(-1)}},
                                     {{half, DType::Float32}, {half, DType::Float32}});
  b.enter(path + ".experts.act_fn");
  const ValueId open = b.activation(c.activation, halves[0]);
  b.enter(path + ".experts");
  const ValueId out = product_by_row(b, gather(b, down, indices), b.multiply(open, halves[1], halves[1]));
  const ValueId weighted = b.multiply(out, b.unsqueeze(weights, 1), out);
  const ValueId apart = b.view(weighted, {tokens, Dim(experts.chosen), Dim(c.width)});
  const ValueId sum = b.emit("aten::sum.dim_IntList", {{"self", ValueRef{apart}}, {"dim", std::vector<Dim>{Dim(1)}}},
                             {tokens, Dim(c.width)});
  b.enter(path);
  return {b.reshape(sum, b.dims(x)), choice.logits};
}

// experts x sum over experts of (share of tokens that chose it) x (mean probability of it), summed over the ranks of
// the choice.
ValueId build_balance_loss(GraphBuilder& b, const ExpertConfig& experts, const std::vector<ValueId>& logits) {
  const ValueId all = b.concatenate(logits, 0);
  const Dim rows = b.dims(all)[0];
  const ValueId probabilities = b.emit_like("aten::softmax.int", {{"self", ValueRef{all}}, {"dim", Dim(-1)}}, all);
  const std::vector<Dim> chosen{rows, Dim(experts.chosen)};
  const auto top = b.emit_several("aten::topk", {{"self", ValueRef{probabilities}}, {"k", Dim(experts.chosen)}},
                                  {{chosen, DType::Float32}, {chosen, DType::Int64}});
  const ValueId marks = b.emit("aten::one_hot", {{"self", ValueRef{top[1]}}, {"num_classes", Dim(experts.count)}},
                               {rows, Dim(experts.chosen), Dim(experts.count)}, DType::Int64);
  const auto mean = [&](ValueId x, std::vector<Dim> dims) {
    return b.emit("aten::mean.dim", {{"self", ValueRef{x}}, {"dim", std::vector<Dim>{Dim(0)}}}, std::move(dims));
  };
  const ValueId share = mean(b.convert(marks, DType::Float32), {Dim(experts.chosen), Dim(experts.count)});
  const ValueId probability = b.unsqueeze(mean(probabilities, {Dim(experts.count)}), 0);
  const ValueId product = b.multiply(share, probability, share);
  const ValueId total = b.emit("aten::sum", {{"self", ValueRef{product}}}, {});
  return b.emit_like("aten::mul.Tensor", {{"self", ValueRef{total}}, {"other", Dim(experts.count)}}, total);
}

}  // namespace coxswain::model
