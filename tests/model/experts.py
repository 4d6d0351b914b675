"""Mixture-of-experts models of transformers 4 in the form of transformers 5: one tensor per projection for all experts.

transformers 4 holds a module per expert and loops over those that a batch hits, which no exporter can follow. Both are
the same function, so the loop is the oracle of loss and gradients (`grouped`), and a model whose mixtures are replaced
(`group_experts`) is what gets exported and measured. transformers 5 multiplies in two forms: `batched`, every chosen
expert's table gathered for every token, and its default, `grouped`, rows sorted by expert and a custom operator.
"""

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


def grouped_product(x, weight, ends):
    """Rows of `x` in groups that end at `ends`, each times its own matrix: transformers 5's operator, in our words."""
    out = x.new_zeros(x.shape[0], weight.shape[2])
    first = 0
    for expert, end in enumerate(ends.tolist()):
        out[first:end] = x[first:end] @ weight[expert]
        first = end
    return out


def register_grouped_product():
    """The custom operator under transformers 5's name, where the installed transformers has none."""
    if hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        return
    operator = torch.library.custom_op("transformers::grouped_mm_fallback", grouped_product, mutates_args=(),
                                       schema="(Tensor input, Tensor weight, Tensor offs) -> Tensor")
    operator.register_fake(lambda x, weight, ends: x.new_empty(x.shape[0], weight.shape[2]))

    def keep(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, gradient):
        x, weight, ends = ctx.saved_tensors
        with torch.enable_grad():
            x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
            return *torch.autograd.grad(grouped_product(x, weight, ends), (x, weight), gradient), None

    operator.register_autograd(backward, setup_context=keep)


class GroupedExperts(nn.Module):
    """Mixture of experts in the form that transformers 5 exports by default: rows sorted by expert and put back."""

    def __init__(self, width, inner, count, chosen, rows_first=False, bias=False, stays_sorted=False):
        super().__init__()
        self.count, self.chosen, self.rows_first, self.stays_sorted = count, chosen, rows_first, stays_sorted
        self.gate = nn.Linear(width, count, bias=False)
        shapes = [(2 * inner, width), (width, inner)]
        self.gate_up, self.down = (nn.Parameter(0.2 * torch.randn(count, *(shape[::-1] if rows_first else shape)))
                                   for shape in shapes)
        self.biases = nn.ParameterList([nn.Parameter(0.2 * torch.randn(count, shape[0])) for shape in shapes] if bias else [])

    def product(self, x, weight, ends, sorted_experts, bias):
        weight = weight if self.rows_first else weight.transpose(-2, -1)
        out = torch.ops.transformers.grouped_mm_fallback(x, weight, ends)
        if self.biases:
            out.add_(self.biases[bias][sorted_experts])
        return out

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weights, experts = torch.topk(functional.softmax(self.gate(flat), dim=-1), self.chosen, dim=-1)
        sorted_experts, order = torch.sort(experts.reshape(-1))
        rows, row_weights = flat[order // self.chosen], weights.reshape(-1)[order]
        ends = torch.cumsum(torch.histc(sorted_experts.float(), bins=self.count, min=0, max=self.count - 1), dim=0,
                            dtype=torch.int32)
        gate, up = self.product(rows, self.gate_up, ends, sorted_experts, 0).chunk(2, dim=-1)
        out = self.product(functional.silu(gate) * up, self.down, ends, sorted_experts, 1) * row_weights.unsqueeze(-1)
        if self.stays_sorted:
            return out.cumsum(0)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.shape[0])
        return out[inverse].view(flat.shape[0], self.chosen, -1).sum(dim=1).reshape(x.shape)


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
        product = torch.ops.transformers.grouped_mm_fallback
        gate, up = product(rows, self.gate_up_proj.transpose(1, 2), ends).chunk(2, dim=-1)
        out = product(self.act_fn(gate) * up, self.down_proj.transpose(1, 2), ends) * weights.reshape(-1)[order].unsqueeze(-1)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0])
        return out[back].view(tokens, chosen, -1).sum(dim=1)


def group_experts(model, form="batched"):
    """Replaces every mixture of `model`; returns it."""
    register_grouped_product()
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
