"""Mixture-of-experts models of transformers 4 in the form of transformers 5: one tensor per projection for all experts.

transformers 4 holds a module per expert and loops over those that a batch hits, which no exporter can follow. Both are
the same function, so the loop is the oracle of loss and gradients (`grouped`), and a model whose mixtures are replaced
(`group_experts`) is what gets exported and measured. transformers 5 multiplies in two forms: `batched`, every chosen
expert's table gathered for every token, and its default, `grouped`, rows sorted by expert and a custom operator.
"""

import functools
import re

import torch
from torch import nn
from torch.nn import functional

# Expert's projections by the names of both families, in the order (gate, up, down).
PROJECTIONS = {"block_sparse_moe": ("w1", "w3", "w2"), "mlp": ("gate_proj", "up_proj", "down_proj")}
EXPERT = re.compile(r"(.*\.)(block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight")


def grouped(tensors):
    """Parameters, or their gradients, by name: those of experts stacked, all under transformers 5's names."""
    result, experts = {}, {}
    for name, tensor in tensors.items():
        match = EXPERT.fullmatch(name)
        if match is None:
            result[name.replace(".block_sparse_moe.", ".mlp.")] = tensor
        else:
            layer, kind, expert, projection = match.groups()
            part = PROJECTIONS[kind].index(projection)
            experts.setdefault(layer + "mlp.experts", {})[int(expert), part] = tensor
    for name, parts in experts.items():
        count = 1 + max(expert for expert, _ in parts)
        result[name + ".gate_up_proj"] = torch.stack([torch.cat([parts[e, 0], parts[e, 1]]) for e in range(count)])
        result[name + ".down_proj"] = torch.stack([parts[e, 2] for e in range(count)])
    return result


class Router(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x, chosen, normalised):
        logits = functional.linear(x, self.weight)
        weights, experts = torch.topk(functional.softmax(logits, dim=-1), chosen, dim=-1)
        return logits, weights / weights.sum(-1, keepdim=True) if normalised else weights, experts


class Experts(nn.Module):
    def __init__(self, gate_up, down, act_fn):
        super().__init__()
        self.gate_up_proj = nn.Parameter(gate_up)
        self.down_proj = nn.Parameter(down)
        self.act_fn = act_fn

    def forward(self, x, weights, experts):
        tokens, chosen = experts.shape
        repeated = x.repeat_interleave(chosen, dim=0)
        weights, experts = weights.reshape(-1), experts.reshape(-1)
        gate, up = torch.bmm(self.gate_up_proj[experts], repeated.unsqueeze(-1)).squeeze(-1).chunk(2, dim=-1)
        out = torch.bmm(self.down_proj[experts], (self.act_fn(gate) * up).unsqueeze(-1)).squeeze(-1)
        return (out * weights.unsqueeze(-1)).view(tokens, chosen, -1).sum(dim=1)


class SortedExperts(Experts):
    """The default form: rows in the order of their experts, one product a group."""

    def forward(self, x, weights, experts):
        tokens, chosen = experts.shape
        sorted_experts, order = torch.sort(experts.reshape(-1))
        rows = x[order // chosen]
        per_expert = torch.histc(sorted_experts.float(), bins=self.down_proj.shape[0], min=0, max=self.down_proj.shape[0] - 1)
        ends = torch.cumsum(per_expert, dim=0, dtype=torch.int32)
        gate, up = grouped_product(rows, self.gate_up_proj, ends).chunk(2, dim=-1)
        out = grouped_product(self.act_fn(gate) * up, self.down_proj, ends) * weights.reshape(-1)[order].unsqueeze(-1)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0])
        return out[back].view(tokens, chosen, -1).sum(dim=1)


def grouped_product(rows, tables, ends):
    """Rows up to ends[0] times tables[0] transposed, then up to ends[1] times tables[1] transposed, ..."""
    register_grouped_mm()
    return torch.ops.transformers.grouped_mm_fallback(rows, tables.transpose(1, 2), ends)


@functools.cache
def register_grouped_mm():
    """transformers 5's operator by its name and schema: (Tensor input, Tensor weight, Tensor offs) -> Tensor."""
    name = "transformers::grouped_mm_fallback"

    def groups(ends):
        ends = [0, *ends.tolist()]
        return enumerate(zip(ends, ends[1:]))

    @torch.library.custom_op(name, mutates_args=())
    def product(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
        out = input.new_zeros(input.shape[0], weight.shape[2])
        for group, (begin, end) in groups(offs):
            out[begin:end] = input[begin:end] @ weight[group]
        return out

    def backward(context, gradient):
        input, weight, offs = context.saved_tensors
        to_input, to_weight = torch.zeros_like(input), torch.zeros_like(weight)
        for group, (begin, end) in groups(offs):
            to_input[begin:end] = gradient[begin:end] @ weight[group].T
            to_weight[group] = input[begin:end].T @ gradient[begin:end]
        return to_input, to_weight, None

    product.register_fake(lambda input, weight, offs: input.new_empty(input.shape[0], weight.shape[2]))
    product.register_autograd(backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


def group_experts(model, form="batched"):
    """Replaces every mixture of `model`; returns it."""
    for layer in list(model.modules()):
        attribute = "block_sparse_moe" if hasattr(layer, "block_sparse_moe") else "mlp"
        old = getattr(layer, attribute, None)
        if not hasattr(old, "experts"):
            continue
        del layer._modules[attribute]
        layer.mlp = mixture_like(old, attribute, {"batched": Experts, "grouped": SortedExperts}[form])
        if attribute != "mlp":
            kind = type(layer)
            layer.__class__ = type(kind.__name__, (kind,), {attribute: property(lambda self: self.mlp)})
    return model


def mixture_like(old, attribute, experts_of):
    kind = type(old)

    # A subclass, since transformers records what instances of the class return.
    class Mixture(kind):
        def __init__(self):
            nn.Module.__init__(self)
            gate, up, down = ([getattr(e, p).weight.detach() for e in old.experts] for p in PROJECTIONS[attribute])
            self.gate = Router(old.gate.weight.detach())
            gate_up = torch.stack([torch.cat(pair) for pair in zip(gate, up)])
            self.experts = experts_of(gate_up, torch.stack(down), old.experts[0].act_fn)
            self.top_k, self.normalised = old.top_k, getattr(old, "norm_topk_prob", True)

        def forward(self, hidden_states):
            flat = hidden_states.view(-1, hidden_states.shape[-1])
            logits, weights, experts = self.gate(flat, self.top_k, self.normalised)
            return self.experts(flat, weights, experts).reshape(hidden_states.shape), logits

    return Mixture()
