"""What PyTorch keeps for backward, and counts as FLOPs, for models without dropout: `python make_expectations.py FOLDER`.

Writes .pt2 archives of models whose dropout is 0 and analysis.json with numbers from eager PyTorch alone:
bytes of unique storages that autograd saves (parameters and buffers excluded), and FLOPs of forward and of backward.
"""

import hashlib
import json
import os
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import make_fixtures  # noqa: E402  (also puts python/ and examples/gpt on the path)
from experts import group_experts  # noqa: E402


def main():
    folder = pathlib.Path(sys.argv[1])
    scripts = [pathlib.Path(__file__), pathlib.Path(__file__).with_name("experts.py")]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in scripts)).hexdigest() + " " + make_fixtures.stamp()
    made = folder / "analysis_stamp"
    if made.exists() and made.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)

    import torch

    import coxswain

    torch.set_num_threads(1)
    expectations = {}
    for name, (module, inputs, config) in modules().items():
        # One export of every operator takes longer than all else: the batch of those stays fixed.
        coxswain.export(module, inputs, folder / f"{name}.pt2", dynamic_batch=not name.startswith("operator_"))
        expectations[name] = {
            "batch": inputs[0].shape[0],
            "saved_bytes": saved_bytes(module, inputs),
            "handed_on_bytes": handed_on_bytes(config, inputs),
            **flops(module, inputs),
            "parameters": {n: list(p.shape) for n, p in module.named_parameters()},
            "config": config,
        }
    part = folder / "analysis.json.part"
    part.write_text(json.dumps(expectations, indent=1, sort_keys=True))
    os.replace(part, folder / "analysis.json")
    made.write_text(wanted)


def saved_bytes(module, inputs):
    """Bytes of the distinct storages that autograd keeps from forward to backward."""
    import torch

    from coxswain.transformers_masks import traceable_masks

    permanent = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    storages, tensors = {}, []

    def pack(tensor):
        tensors.append(tensor)  # alive until counted, so that no address is reused
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    module.train()
    # Masks decided as the exporter decides them, so that eager runs the operators of the archive.
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), traceable_masks():
        loss = module(*inputs)
    loss.backward()
    module.zero_grad(set_to_none=True)
    return sum(size for address, size in storages.items() if address not in permanent)


def handed_on_bytes(config, inputs):
    """Router logits that blocks receive for the balance loss after the last; PyTorch keeps none of them.

    The second layer receives the first's, the third those of two, and so on up to the epilogue."""
    if not config or not config.get("output_router_logits"):
        return 0
    return sum(range(config["num_hidden_layers"] + 1)) * inputs[0].numel() * config["num_local_experts"] * 4


def flops(module, inputs):
    """PyTorch's counts, with attention by its own formula: 4 b h q k d forward, 2.5 times that backward.

    The counter knows attention on CPU only as the matmuls of the math backend, so what those add is attention's forward.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    forward, backward = count_flops(module, inputs)
    with sdpa_kernel(SDPBackend.MATH):
        attention = count_flops(module, inputs)[0] - forward
    return {"forward_flop": forward + attention, "backward_flop": backward + 2.5 * attention}


def count_flops(module, inputs):
    from torch.utils.flop_counter import FlopCounterMode

    from coxswain.transformers_masks import traceable_masks

    with FlopCounterMode(display=False) as forward, traceable_masks():
        loss = module(*inputs)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    module.zero_grad(set_to_none=True)
    return forward.get_total_flops(), backward.get_total_flops()


def modules():
    import torch
    from model import Gpt, GptConfig

    result = {}

    def add(name, module, config=None, vocabulary=96):
        tokens = torch.randint(vocabulary, (2, LENGTH))
        result[name] = (module, (tokens, torch.randint(vocabulary, (2, LENGTH))), config)

    torch.manual_seed(3)
    for layers in (2, 3):
        add(f"saved_gpt_{layers}", Gpt(GptConfig(layers, 64, 4, LENGTH, 96, 0.0)))
        for name, (config, kind) in text_models(layers).items():
            config._attn_implementation = "sdpa"
            config.loss_type = "ForCausalLM"
            add(f"saved_{name}_{layers}", make_fixtures.with_loss(group_experts(kind(config))), config.to_dict())
    return {**result, **encoder_modules(), **operator_modules()}


LENGTH = 32


def text_models(layers):
    """Name -> (configuration, class) of decoders without dropout."""
    import transformers as t

    gpt2 = t.GPT2Config(n_layer=layers, n_embd=64, n_head=4, n_positions=LENGTH, vocab_size=96, use_cache=False,
                        embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
    tiny = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": layers, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": LENGTH, "use_cache": False}
    models = {"gpt2": (gpt2, t.GPT2LMHeadModel), "llama": (t.LlamaConfig(**tiny), t.LlamaForCausalLM)}
    if layers != 2:
        return models
    sliding = {"use_sliding_window": True, "sliding_window": 8}
    qwen3_moe = {**tiny, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 48}
    return {
        **models,
        "mistral": (t.MistralConfig(**tiny), t.MistralForCausalLM),
        "mistral_window": (t.MistralConfig(**tiny, sliding_window=8), t.MistralForCausalLM),
        "qwen2": (t.Qwen2Config(**tiny), t.Qwen2ForCausalLM),
        "qwen3": (t.Qwen3Config(**{**tiny, "head_dim": 24}), t.Qwen3ForCausalLM),
        "qwen3_window": (t.Qwen3Config(**tiny, **sliding, max_window_layers=1), t.Qwen3ForCausalLM),
        "mixtral": (t.MixtralConfig(**tiny, num_local_experts=6), t.MixtralForCausalLM),
        "mixtral_balance": (t.MixtralConfig(**tiny, num_local_experts=6, output_router_logits=True),
                            t.MixtralForCausalLM),
        "qwen3_moe": (t.Qwen3MoeConfig(**qwen3_moe), t.Qwen3MoeForCausalLM),
        "qwen3_moe_mixed": (t.Qwen3MoeConfig(**qwen3_moe, decoder_sparse_step=2, norm_topk_prob=True),
                            t.Qwen3MoeForCausalLM),
    }


def encoder_modules():
    import torch
    import transformers as t
    from torch import nn

    small = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
             "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bert = t.BertConfig(**small, vocab_size=96, max_position_embeddings=LENGTH)
    vit = t.ViTConfig(**small, image_size=24, patch_size=4, num_labels=10)

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = t.BertForMaskedLM(bert)

        def forward(self, tokens, mask, types, labels):
            return self.model(input_ids=tokens, attention_mask=mask, token_type_ids=types, labels=labels).loss

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = t.ViTForImageClassification(vit)

        def forward(self, pixels, labels):
            return self.model(pixel_values=pixels, labels=labels).loss

    torch.manual_seed(5)
    tokens, mask = torch.randint(96, (2, LENGTH)), torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, 20:] = 0
    text = (tokens, mask, torch.randint(2, (2, LENGTH)), torch.randint(96, (2, LENGTH)))
    return {"saved_bert_2": (Bert(), text, bert.to_dict()),
            "saved_vit_2": (Vit(), (torch.randn(2, 3, 24, 24), torch.randint(10, (2,))), vit.to_dict())}


def operator_modules():
    """One operator each, on a value that needs a gradient (h = x W), so that what it keeps is seen alone."""
    import torch
    from torch import nn
    from torch.nn import functional

    class OneOperator(nn.Module):
        def __init__(self, operator):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(16) * 0.5 + 0.01)
            self.scale = nn.Parameter(torch.ones(16))
            self.operator = operator

        def forward(self, x, labels):
            h = (x @ self.weight).sigmoid() + 0.5
            return self.operator(self, h, labels).float().sum() / x.shape[0]

    def heads(h):
        return h.view(h.shape[0], 8, 4, 4).transpose(1, 2)

    operators = {
        "add": lambda m, h, y: h + 2 * h,
        "sub": lambda m, h, y: 1 - h - h.neg(),
        "mul": lambda m, h, y: h * h.detach().cos(),
        "mul_both": lambda m, h, y: h * (h + 1),
        "mul_scalar": lambda m, h, y: h * 3.0,
        "mul_parameter": lambda m, h, y: h * m.scale,
        "div": lambda m, h, y: h / (h + 1),
        "div_scalar": lambda m, h, y: h / 3.0,
        "div_constant": lambda m, h, y: h / (h.detach() + 1),
        "pow": lambda m, h, y: h**3,
        "rsqrt": lambda m, h, y: torch.rsqrt(h),
        "sqrt": lambda m, h, y: torch.sqrt(h),
        "exp": lambda m, h, y: torch.exp(h),
        "log": lambda m, h, y: torch.log(h),
        "tanh": lambda m, h, y: torch.tanh(h),
        "sigmoid": lambda m, h, y: torch.sigmoid(h),
        "relu": lambda m, h, y: torch.relu(h),
        "gelu": lambda m, h, y: functional.gelu(h),
        "silu": lambda m, h, y: functional.silu(h),
        "elu": lambda m, h, y: functional.elu(h),
        "leaky_relu": lambda m, h, y: functional.leaky_relu(h),
        "softplus": lambda m, h, y: functional.softplus(h),
        "hardtanh": lambda m, h, y: functional.hardtanh(h),
        "abs": lambda m, h, y: torch.abs(h),
        "sin": lambda m, h, y: torch.sin(h),
        "erf": lambda m, h, y: torch.erf(h),
        "clamp": lambda m, h, y: torch.clamp(h, 0.6, 1.0),
        "maximum": lambda m, h, y: torch.maximum(h, 1.5 - h),
        "where": lambda m, h, y: torch.where(h.detach() > 1, h, 0.5 * h),
        "masked_fill": lambda m, h, y: h.masked_fill(h.detach() > 1, 0.0),
        "addcmul": lambda m, h, y: torch.addcmul(h, h + 1, h + 2),
        "softmax": lambda m, h, y: torch.softmax(h, -1) * 2,
        "log_softmax": lambda m, h, y: torch.log_softmax(h, -1) * 2,
        "layer_norm": lambda m, h, y: functional.layer_norm(h, (16,), m.scale, m.scale),
        "layer_norm_plain": lambda m, h, y: functional.layer_norm(h, (16,)),
        "rms_norm": lambda m, h, y: functional.rms_norm(h, (16,), m.scale),
        "group_norm": lambda m, h, y: functional.group_norm(h.transpose(1, 2).contiguous(), 4),
        "sum_dim": lambda m, h, y: h.sum(1),
        "mean_dim": lambda m, h, y: h.mean(-1, keepdim=True),
        "var": lambda m, h, y: h.var(-1),
        "amax": lambda m, h, y: h.amax(-1),
        "max_dim": lambda m, h, y: h.max(-1).values,
        "logsumexp": lambda m, h, y: h.logsumexp(-1),
        "cumsum": lambda m, h, y: h.cumsum(1),
        "norm": lambda m, h, y: torch.linalg.vector_norm(h, dim=-1),
        "cross_entropy": lambda m, h, y: functional.cross_entropy(h.flatten(0, 1), y.flatten()),
        "nll_loss": lambda m, h, y: functional.nll_loss(h.flatten(0, 1).log(), y.flatten()),
        "mse_loss": lambda m, h, y: functional.mse_loss(h, h.detach() * 2),
        "binary_cross_entropy": lambda m, h, y: functional.binary_cross_entropy_with_logits(h, (h.detach() > 1).float()),
        "linear": lambda m, h, y: functional.linear(h, m.weight),
        "linear_transposed": lambda m, h, y: functional.linear(heads(h).transpose(1, 2).flatten(2), m.weight, m.scale),
        "linear_strided": lambda m, h, y: functional.linear(h.view(-1, 4, 2, 16).transpose(1, 2), m.weight),
        "matmul_heads": lambda m, h, y: heads(h) @ heads(h + 1).transpose(2, 3),
        "matmul_detached": lambda m, h, y: heads(h) @ heads(h.detach() + 1).transpose(2, 3),
        "bmm": lambda m, h, y: torch.bmm(h, (h + 1).transpose(1, 2)),
        "baddbmm": lambda m, h, y: torch.baddbmm(h, h @ torch.ones(16, 8), h + 1),
        "einsum": lambda m, h, y: torch.einsum("bik,bjk->bij", h, h + 1),
        "attention": lambda m, h, y: functional.scaled_dot_product_attention(heads(h), heads(h + 1), heads(h + 2), is_causal=True),
        "attention_mask": lambda m, h, y: functional.scaled_dot_product_attention(
            heads(h), heads(h + 1), heads(h + 2), attn_mask=torch.ones(8, 8).tril().bool()),
        "attention_merged": lambda m, h, y: functional.linear(
            functional.scaled_dot_product_attention(heads(h), heads(h + 1), heads(h + 2)).transpose(1, 2).flatten(2), m.weight),
        "embedding": lambda m, h, y: functional.embedding(y, m.weight) * h,
        "gather": lambda m, h, y: h.gather(-1, y.unsqueeze(-1)),
        "index_select": lambda m, h, y: h.index_select(1, y[0, :2] % 8),
        "cat": lambda m, h, y: torch.cat([h, h * 2], 1),
        "stack": lambda m, h, y: torch.stack([h, h * 2], 1),
        "pad": lambda m, h, y: functional.pad(h, (1, 1)) * 2,
        "views": lambda m, h, y: h.view(-1, 8, 4, 4).permute(0, 2, 1, 3).unsqueeze(1).squeeze(1).select(1, 0).tanh(),
        "split": lambda m, h, y: torch.split(h, 4, -1)[1].exp(),
        "chunk_unbind": lambda m, h, y: h.unbind(1)[2].exp() + h.chunk(2, 1)[1][:, 0].log(),
        "expand": lambda m, h, y: h.mean(1, keepdim=True).expand(-1, 8, -1) * h,
        "reshape_copies": lambda m, h, y: heads(h).reshape(h.shape[0], 32, 4).tanh().exp(),
        "reshape_views": lambda m, h, y: heads(h).transpose(1, 2).reshape(h.shape[0], 8, 16).log(),
        "pointwise_order": lambda m, h, y: (heads(h) * 2).transpose(1, 2).reshape(h.shape[0], 8, 16).log(),
        "tril": lambda m, h, y: torch.tril(h),
        "to_double": lambda m, h, y: h.double().exp(),
        "conv1d": lambda m, h, y: functional.conv1d(h.transpose(1, 2).contiguous(), m.weight.unsqueeze(-1).expand(16, 16, 3).contiguous(), padding=1),
        "glu": lambda m, h, y: functional.glu(h),
        "no_grad": lambda m, h, y: h * (h.detach() * 2).softmax(-1),
    }
    torch.manual_seed(4)
    inputs = torch.randn(2, 8, 16), torch.randint(16, (2, 8))
    return {f"operator_{name}": (OneOperator(operator), inputs, None) for name, operator in operators.items()}


if __name__ == "__main__":
    main()
