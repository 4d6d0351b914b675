#include "tests/plan/rules/prove.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <stdexcept>

#include "tests/plan/rules/case_text.h"
#include "tests/plan/rules/parts.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::tests {
namespace {

using plan::Factor;
using plan::FactorKind;
using plan::OpFactors;
using plan::OpPlacement;
using plan::Part;
using plan::PartForm;
using plan::PlacementKind;
using Tensors = std::vector<at::Tensor>;

DType dtype_of(const at::Tensor& tensor) {
  for (const DType dtype : {DType::Bool, DType::Int64, DType::Float32, DType::Float64, DType::BFloat16, DType::Int32})
    if (worker::options_of(dtype).dtype() == tensor.dtype()) return dtype;
  throw std::runtime_error("a dtype that no case has");
}

// One run with gradients: outputs, and gradients of the inputs that have one (undefined: none).
struct Run {
  Tensors outputs, gradients;
};

class Case {
 public:
  Case(const RuleCase& one, DType dtype) : dtype_(worker::scalar_type_of(dtype)), read_(read_case(one, dtype)) {
    Tensors inputs;
    for (const CaseTensor& input : read_.inputs) inputs.push_back(input.whole);
    const Tensors outputs = run_op(read_.graph, op(), inputs);
    for (const at::Tensor& output : outputs) {
      model::Value value;
      for (const std::int64_t size : output.sizes()) value.dims.emplace_back(size);
      value.dtype = dtype_of(output);
      read_.graph.ops[0].outputs.push_back(static_cast<int>(read_.graph.values.size()));
      read_.graph.values.push_back(std::move(value));
      cotangents_.push_back(output.is_floating_point() ? at::randn_like(output) : at::Tensor());
    }
    whole_ = run(op(), inputs, [](Tensors outputs) { return outputs; }, cotangents_);
  }

  [[nodiscard]] c10::ScalarType dtype() const { return dtype_; }
  [[nodiscard]] const CaseGraph& read() const { return read_; }
  [[nodiscard]] const model::Op& op() const { return read_.graph.ops[0]; }
  [[nodiscard]] const Run& whole() const { return whole_; }
  [[nodiscard]] const Tensors& cotangents() const { return cotangents_; }

  template <class Finish>
  Run run(const model::Op& op, const Tensors& inputs, const Finish& finish, const Tensors& cotangents) const {
    Tensors leaves, wanted, differentiated, weights;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      leaves.push_back(inputs[i].clone());
      if (read_.inputs[i].differentiable) wanted.push_back(leaves[i].set_requires_grad(true));
    }
    Run result;
    result.outputs = finish(run_op(read_.graph, op, leaves));
    for (std::size_t o = 0; o < result.outputs.size() && o < cotangents.size(); ++o) {
      if (!cotangents[o].defined() || !result.outputs[o].requires_grad()) continue;
      differentiated.push_back(result.outputs[o]);
      weights.push_back(cotangents[o]);
    }
    result.gradients.resize(inputs.size());
    if (differentiated.empty() || wanted.empty()) return result;
    const auto found = torch::autograd::grad(differentiated, wanted, weights, std::nullopt, false, true);
    std::size_t next = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (read_.inputs[i].differentiable) result.gradients[i] = found[next++];
    return result;
  }

 private:
  c10::ScalarType dtype_;
  CaseGraph read_;
  Run whole_;
  Tensors cotangents_;
};

// Inputs of one rank from whole tensors, by placement.
class Prover {
 public:
  Prover(const Case& one, const OpFactors& factors) : case_(one), factors_(factors) {}

  // "" where all parts together are the whole.
  std::string check(const OpPlacement& placement, const std::vector<Part>& parts, std::size_t count) {
    const bool max = std::find(placement.outputs.begin(), placement.outputs.end(), PlacementKind::PartialMax) !=
                     placement.outputs.end();
    std::vector<Tensors> inputs = scatter(placement, parts, count);
    std::vector<Run> runs;
    for (std::size_t rank = 0; rank < count; ++rank) {
      const std::span<const Part> own(parts.data() + (parts.empty() ? 0 : rank), parts.empty() ? 0 : 1);
      const model::Op local = plan::localise(case_.op(), factors_, own);
      const Tensors cotangents = max ? Tensors{} : cotangents_of(placement, own, rank);
      runs.push_back(case_.run(
          local, masked(inputs[rank], own),
          [&](Tensors outputs) { return finished(std::move(outputs), inputs[rank], own); }, cotangents));
    }
    if (std::string text = compare_outputs(placement, parts, runs); !text.empty()) return text;
    return max ? "" : compare_gradients(placement, parts, runs);
  }
  [[nodiscard]] bool has_gradient() const {
    return std::any_of(case_.whole().gradients.begin(), case_.whole().gradients.end(),
                       [](const at::Tensor& gradient) { return gradient.defined(); });
  }

 private:
  std::vector<Tensors> scatter(const OpPlacement& placement, const std::vector<Part>& parts, std::size_t count) {
    std::vector<Tensors> ranks(count);
    for (std::size_t i = 0; i < factors_.inputs.size(); ++i) {
      const plan::TensorFactors& tensor = factors_.inputs[i];
      const at::Tensor& whole = case_.read().inputs[static_cast<std::size_t>(tensor.value)].whole;
      const Tensors summands =
          placement.inputs[i] == PlacementKind::PartialSum ? make_summands(whole, count) : Tensors{};
      for (std::size_t rank = 0; rank < count; ++rank) {
        ranks[rank].resize(std::max(ranks[rank].size(), static_cast<std::size_t>(tensor.value) + 1));
        at::Tensor& local = ranks[rank][static_cast<std::size_t>(tensor.value)];
        local = !summands.empty()                             ? summands[rank]
                : placement.inputs[i] == PlacementKind::Shard ? take_part(whole, tensor, factors_, parts[rank])
                                                              : whole;
      }
    }
    return ranks;
  }

  const Factor* factor_of(std::span<const Part> own) const {
    return own.empty() ? nullptr : &factors_.factors[static_cast<std::size_t>(own[0].factor)];
  }

  Tensors masked(const Tensors& inputs, std::span<const Part> own) const {
    const Factor* factor = factor_of(own);
    if (factor == nullptr || factor->form != PartForm::Masked) return inputs;
    Tensors moved = inputs;
    at::Tensor& index = moved[static_cast<std::size_t>(factors_.inputs[static_cast<std::size_t>(factor->index)].value)];
    index = at::clamp(index - own[0].first, 0, own[0].size - 1);
    return moved;
  }

  Tensors finished(Tensors outputs, const Tensors& inputs, std::span<const Part> own) const {
    const Factor* factor = factor_of(own);
    if (factor == nullptr || factor->form == PartForm::Plain) return outputs;
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      if (factor->form == PartForm::Scaled && outputs[o].is_floating_point())
        outputs[o] = outputs[o] * (static_cast<double>(own[0].size) / static_cast<double>(factor->size));
      if (factor->form == PartForm::Masked) outputs[o] = outputs[o] * inside(inputs, *factor, own[0], o);
    }
    return outputs;
  }

  // Where indices lie in the part, with the dims of output `o`.
  at::Tensor inside(const Tensors& inputs, const Factor& factor, const Part& own, std::size_t o) const {
    const plan::TensorFactors& index = factors_.inputs[static_cast<std::size_t>(factor.index)];
    const at::Tensor& indices = inputs[static_cast<std::size_t>(index.value)];
    std::vector<std::int64_t> sizes;
    std::size_t next = 0;
    for (const std::vector<int>& dim : factors_.outputs[o].dims) {
      while (next < index.dims.size() && index.dims[next].empty()) ++next;
      const bool same = next < index.dims.size() && dim == index.dims[next];
      sizes.push_back(same ? indices.size(static_cast<std::int64_t>(next++)) : 1);
    }
    return at::logical_and(indices.ge(own.first), indices.lt(own.first + own.size)).reshape(sizes);
  }

  Tensors cotangents_of(const OpPlacement& placement, std::span<const Part> own, std::size_t rank) const {
    Tensors local = case_.cotangents();
    for (std::size_t o = 0; o < local.size(); ++o) {
      if (!local[o].defined()) continue;
      const auto kind = plan::dual(placement.outputs[o]);
      if (kind == PlacementKind::Shard) local[o] = take_part(local[o], factors_.outputs[o], factors_, own[0]);
      if (kind == PlacementKind::PartialSum && rank > 0) local[o] = at::zeros_like(local[o]);
    }
    return local;
  }

  std::string compare(PlacementKind kind, const plan::TensorFactors& tensor, const std::vector<Part>& parts,
                      const Tensors& locals, const at::Tensor& wanted) const {
    switch (kind) {
      case PlacementKind::Replicate:
        for (const at::Tensor& local : locals)
          if (std::string text = difference(local, wanted, case_.dtype()); !text.empty()) return text;
        return "";
      case PlacementKind::Shard: {
        std::int64_t elements = 0;
        for (const at::Tensor& local : locals) elements += local.numel();
        if (elements != wanted.numel()) return "parts have other sizes";
        return difference(join_parts(locals, tensor, factors_, parts[0].factor, wanted.sizes().vec()), wanted,
                          case_.dtype());
      }
      case PlacementKind::PartialSum:
      case PlacementKind::PartialMax: {
        at::Tensor together = locals[0];
        for (std::size_t i = 1; i < locals.size(); ++i) {
          if (locals[i].sizes() != together.sizes()) return "summands have other sizes";
          together = kind == PlacementKind::PartialSum ? together + locals[i] : at::maximum(together, locals[i]);
        }
        return difference(together, wanted, case_.dtype());
      }
    }
    return "";
  }

  std::string compare_outputs(const OpPlacement& placement, const std::vector<Part>& parts,
                              const std::vector<Run>& runs) const {
    const at::NoGradGuard no_grad;
    const bool unset = case_.op().target.find("empty") != std::string::npos;  // elements mean nothing: sizes only
    for (std::size_t o = 0; o < factors_.outputs.size(); ++o) {
      Tensors locals;
      for (const Run& run : runs) {
        if (o >= run.outputs.size()) return "a part has fewer outputs";
        locals.push_back(unset ? at::zeros_like(run.outputs[o]) : run.outputs[o]);
      }
      const at::Tensor wanted = unset ? at::zeros_like(case_.whole().outputs[o]) : case_.whole().outputs[o];
      std::string text = compare(placement.outputs[o], factors_.outputs[o], parts, locals, wanted);
      if (!text.empty()) return "output " + std::to_string(o) + ": " + text;
    }
    return "";
  }

  std::string compare_gradients(const OpPlacement& placement, const std::vector<Part>& parts,
                                const std::vector<Run>& runs) const {
    for (std::size_t i = 0; i < factors_.inputs.size(); ++i) {
      const auto value = static_cast<std::size_t>(factors_.inputs[i].value);
      const at::Tensor& wanted = case_.whole().gradients[value];
      if (!wanted.defined()) continue;
      Tensors locals;
      for (const Run& run : runs) {
        if (!run.gradients[value].defined()) return "a part has no gradient of input " + std::to_string(i);
        locals.push_back(run.gradients[value]);
      }
      std::string text = compare(*plan::dual(placement.inputs[i]), factors_.inputs[i], parts, locals, wanted);
      if (!text.empty()) return "gradient of input " + std::to_string(i) + ": " + text;
    }
    return "";
  }

  const Case& case_;
  const OpFactors& factors_;
};

class CaseProof {
 public:
  CaseProof(const RuleCase& one, DType dtype, Proof& proof)
      : one_(one), dtype_(dtype), case_(one, dtype), proof_(proof) {}

  void prove_all(const plan::ShardRule& rule) {
    const auto factors = bind(rule);
    if (!factors) {
      proof_.failures.push_back(name() + ": the rule does not take it");
      return;
    }
    for (std::size_t f = 0; f < factors->factors.size(); ++f) prove_factor(*factors, static_cast<int>(f));
    if (dtype_ != DType::BFloat16) prove_linear(*factors);
  }

  // Every factor that must stay whole, as if it were free or summed: some comparison must fail.
  void plant_all(const plan::ShardRule& rule) {
    const auto factors = bind(rule);
    if (!factors) return;
    for (std::size_t f = 0; f < factors->factors.size(); ++f) {
      if (factors->factors[f].kind != FactorKind::Whole) continue;
      for (const FactorKind kind : {FactorKind::Free, FactorKind::Sum}) {
        OpFactors wrong = *factors;
        wrong.factors[f].kind = kind;
        ++proof_.flips;
        bool caught = false;
        for (const auto& parts : splits_of(static_cast<int>(f), wrong.factors[f].size))
          caught =
              caught || !attempt(wrong, plan::place_shard(wrong, static_cast<int>(f)), parts, parts.size()).empty();
        if (!caught) proof_.missed.push_back(name() + ": " + plan::to_text(*factors) + ", " + wrong.factors[f].name);
      }
    }
  }

 private:
  [[nodiscard]] std::string name() const {
    return std::string(one_.target) + "(" + one_.arguments + ") " + std::string(to_text(dtype_));
  }
  std::optional<OpFactors> bind(const plan::ShardRule& rule) const {
    return plan::bind_rule(rule, case_.read().graph, case_.op(), 1);
  }

  std::string attempt(const OpFactors& factors, const OpPlacement& placement, const std::vector<Part>& parts,
                      std::size_t count) {
    try {
      return Prover(case_, factors).check(placement, parts, count);
    } catch (const std::exception& error) {
      return std::string("does not run: ") + std::string(error.what()).substr(0, 200);
    }
  }

  void record(const OpFactors& factors, const OpPlacement& placement, const std::vector<Part>& parts, std::size_t count,
              const std::string& what) {
    const std::string text = attempt(factors, placement, parts, count);
    if (!text.empty()) proof_.failures.push_back(name() + ": " + plan::to_text(factors) + ", " + what + ": " + text);
    ++proof_.placements;
    const bool max = std::find(placement.outputs.begin(), placement.outputs.end(), PlacementKind::PartialMax) !=
                     placement.outputs.end();
    if (!max && Prover(case_, factors).has_gradient()) ++proof_.backward;
  }

  void prove_parts(const OpFactors& factors, int factor) {
    const Factor& split = factors.factors[static_cast<std::size_t>(factor)];
    for (const auto& parts : splits_of(factor, split.size))
      record(factors, plan::place_shard(factors, factor), parts, parts.size(), split.name + "=" + sizes_text(parts));
  }

  void prove_factor(const OpFactors& factors, int factor) {
    const Factor& split = factors.factors[static_cast<std::size_t>(factor)];
    if (split.kind == FactorKind::Whole) return;
    prove_parts(factors, factor);
    std::int64_t outer = 2;
    while (outer < split.size && split.size % outer != 0) ++outer;
    if (split.contiguous || outer >= split.size) return;
    // Strided parts: o = (outer inner), split by inner.
    const std::vector<std::int64_t> sizes{outer, split.size / outer};
    const OpFactors refined = plan::refine(factors, factor, sizes);
    prove_parts(refined, static_cast<int>(factors.factors.size()));
  }

  void prove_linear(const OpFactors& factors) {
    for (std::size_t group = 0; group < factors.linear.size(); ++group)
      for (std::size_t count = 2; count <= 3; ++count)
        record(factors, plan::place_partial(factors, group), {}, count, "summands " + std::to_string(count));
  }

  const RuleCase& one_;
  DType dtype_;
  Case case_;
  Proof& proof_;
};

void seed() {
  at::Generator generator = at::globalContext().defaultGenerator(c10::DeviceType::CPU);
  generator.set_current_seed(7);
}

const plan::ShardRule& rule_of(const RuleCase& one) {
  const plan::ShardRule* rule = plan::find_shard_rule(one.target);
  if (rule == nullptr) throw std::runtime_error(std::string("no rule: ") + one.target);
  return *rule;
}

}  // namespace

Proof prove(const RuleCase& one, const plan::ShardRule* rule) {
  Proof proof;
  const plan::ShardRule& used = rule == nullptr ? rule_of(one) : *rule;
  for (const DType dtype : {DType::Float64, DType::Float32, DType::BFloat16}) {
    seed();
    std::optional<CaseProof> whole;
    try {
      whole.emplace(one, dtype, proof);
    } catch (const std::exception& error) {
      // Some operators have no bfloat16 kernel on CPUs.
      if (dtype == DType::BFloat16) continue;
      proof.failures.push_back(std::string(one.target) + "(" + one.arguments +
                               ") does not run whole: " + std::string(error.what()).substr(0, 200));
      break;
    }
    whole->prove_all(used);
    if (!read_case(one, dtype).floating) break;
  }
  return proof;
}

Proof plant(const RuleCase& one) {
  Proof proof;
  seed();
  CaseProof(one, DType::Float64, proof).plant_all(rule_of(one));
  return proof;
}

std::string bound_text(const RuleCase& one) {
  const Case whole(one, DType::Float64);
  const auto factors = plan::bind_rule(rule_of(one), whole.read().graph, whole.op(), 1);
  return factors ? plan::to_text(*factors) : "replicated";
}

}  // namespace coxswain::tests
