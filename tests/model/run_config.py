"""Runs graphs built from a Hugging Face config.json in PyTorch, with transformers' weights, and compares loss, gradients,
gradients' names and shapes with transformers' own model: `run_config.py DUMP_GRAPH`."""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch

from experts import grouped
from run_graph import Runner, compare

LENGTH = 12
VOCABULARY = 64
WIDE = 0.2  # initial weights ten times the usual ones, so that kinds of gelu differ


def main():
    torch.set_num_threads(1)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models().items():
            try:
                check(sys.argv[1], pathlib.Path(folder) / "config.json", model)
                print(f"{name}: equal")
            except Exception as error:
                failures += 1
                print(f"{name}: {type(error).__name__}: {error}")
    sys.exit(1 if failures else 0)


def models():
    import transformers

    torch.manual_seed(11)
    return {**gpt2_models(transformers), **decoders(transformers), **mixtures(transformers), **encoders(transformers)}


TINY = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY,
        "max_position_embeddings": 16, "initializer_range": WIDE}


def gpt2_models(t):
    def gpt2(**options):
        return t.GPT2LMHeadModel(t.GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=16, vocab_size=VOCABULARY,
                                              initializer_range=WIDE, **options))

    return {
        "gpt2": gpt2(),
        "gpt2, untied, gelu, narrow mlp": gpt2(tie_word_embeddings=False, activation_function="gelu", n_inner=40, layer_norm_epsilon=1e-3),
        "gpt2, tanh gelu": gpt2(activation_function="gelu_pytorch_tanh"),
        "gpt2, relu": gpt2(activation_function="relu"),
    }


def decoders(t):
    def llama(**options):
        return t.LlamaForCausalLM(t.LlamaConfig(**TINY, **options))

    def mistral(**options):
        return t.MistralForCausalLM(t.MistralConfig(**{**TINY, "num_key_value_heads": 2, **options}))

    def qwen2(**options):
        return with_biases(t.Qwen2ForCausalLM(t.Qwen2Config(**{**TINY, "num_key_value_heads": 2, **options})))

    def qwen3(**options):
        return with_biases(t.Qwen3ForCausalLM(t.Qwen3Config(**{**TINY, "num_key_value_heads": 2, **options})))

    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    mixed = ["full_attention", "sliding_attention"]
    return {
        "llama": llama(),
        "llama, grouped, tied, biases": llama(num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_theta=500.0),
        "llama, wide heads, padding": llama(head_dim=16, pad_token_id=3, rms_norm_eps=1e-3),
        "llama, linear scaling": llama(rope_scaling={"rope_type": "linear", "factor": 3.0}),
        "llama 3": llama(rope_scaling=llama3),
        "mistral": mistral(),
        "mistral, wide heads, no window, tied": mistral(head_dim=16, sliding_window=None, tie_word_embeddings=True),
        "mistral, sliding window": mistral(sliding_window=5),
        "mistral, window as long as the text, one head each": mistral(sliding_window=LENGTH, num_key_value_heads=None),
        "qwen2": qwen2(),
        "qwen2, tied, linear scaling": qwen2(tie_word_embeddings=True, rope_scaling={"rope_type": "linear", "factor": 2.0}),
        "qwen2, last layer slides": without_layer_types(qwen2(use_sliding_window=True, sliding_window=4, max_window_layers=1)),
        "qwen2, layer types": qwen2(use_sliding_window=True, sliding_window=4, layer_types=mixed),
        "qwen3": qwen3(),
        "qwen3, narrow heads, biases, tied": qwen3(head_dim=6, attention_bias=True, tie_word_embeddings=True),
        "qwen3, layer types": qwen3(head_dim=8, use_sliding_window=True, sliding_window=3, layer_types=mixed),
    }


def mixtures(t):
    def mixtral(**options):
        return t.MixtralForCausalLM(t.MixtralConfig(**{**TINY, "num_key_value_heads": 2, "num_local_experts": 6, **options}))

    def qwen3_moe(**options):
        return with_biases(t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(
            **{**TINY, "num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24, **options})))

    return {
        "mixtral": mixtral(),
        "mixtral, balance loss, one expert a token": mixtral(output_router_logits=True, router_aux_loss_coef=0.3, num_experts_per_tok=1),
        "mixtral, sliding window, tied": mixtral(sliding_window=5, tie_word_embeddings=True),
        "qwen3_moe": qwen3_moe(),
        "qwen3_moe, normalised, balance loss": qwen3_moe(norm_topk_prob=True, output_router_logits=True, router_aux_loss_coef=0.2),
        "qwen3_moe, wide heads, biases": qwen3_moe(head_dim=12, attention_bias=True),
        "qwen3_moe, every second layer": qwen3_moe(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3]),
        "qwen3_moe, sliding window": qwen3_moe(use_sliding_window=True, sliding_window=4),
    }


def encoders(t):
    def bert(**options):
        return with_biases(t.BertForMaskedLM(t.BertConfig(**TINY, **options)))

    def vit(**options):
        small = {k: TINY[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "initializer_range")}
        return with_biases(t.ViTForImageClassification(t.ViTConfig(**{**small, "image_size": 16, "patch_size": 4, "num_labels": 5, **options})))

    return {
        "bert": bert(),
        "bert, untied, relu, four types": bert(tie_word_embeddings=False, hidden_act="relu", type_vocab_size=4, layer_norm_eps=1e-3, pad_token_id=3),
        "vit": vit(),
        "vit, oblong, no biases, one channel": vit(image_size=[12, 20], patch_size=[4, 5], qkv_bias=False, num_channels=1),
        "vit, pixels left over": vit(image_size=18, hidden_act="gelu_new"),
    }


def with_biases(model):
    """Biases start at zero and norms at one, which hides mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def without_layer_types(model):
    """As files older than that member: the number of layers without a window decides."""
    del model.config.layer_types
    return model


def inputs_of(model, batch):
    """What the model's forward takes, by name; the labels of text have ignored places."""
    config = model.config
    if config.model_type == "vit":
        sides = config.image_size if isinstance(config.image_size, list) else [config.image_size] * 2
        return {"pixel_values": torch.randn(batch, config.num_channels, *sides), "labels": torch.randint(config.num_labels, (batch,))}
    tokens = torch.randint(VOCABULARY, (batch, LENGTH))
    labels = tokens.clone()
    labels[0, :3] = -100
    if config.model_type != "bert":
        return {"input_ids": tokens, "labels": labels}
    mask = torch.ones_like(tokens)
    mask[0, -4:] = 0
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.randint(config.type_vocab_size, (batch, LENGTH)),
            "labels": labels}


class ConfigRunner(Runner):
    """Weights by name from a transformers model; buffers from the graph."""

    def __init__(self, graph, model):
        self.graph = graph
        named = grouped(dict(model.named_parameters()))
        ours = {p["name"]: p["dims"] for p in graph["parameters"]}
        theirs = {name: list(p.shape) for name, p in named.items()}
        if ours != theirs:
            raise AssertionError(f"parameters differ: ours {ours}, theirs {theirs}")
        everything = set(grouped(dict(model.named_parameters(remove_duplicate=False))))
        tied = {name for p in graph["parameters"] for name in p["tied"]}
        if set(ours) | tied != everything:
            raise AssertionError(f"tied names differ: {tied}, expected {everything - set(ours)}")
        self.parameters = {p["value"]: named[p["name"]].detach().clone().requires_grad_() for p in graph["parameters"]}
        self.buffers = {b["value"]: torch.tensor([float.fromhex(x) for x in b["content"]], dtype=torch.float64)
                        .to(getattr(torch, b["dtype"])).reshape(b["dims"]) for b in graph["buffers"]}


def check(program, file, model):
    model.eval()
    model.config._attn_implementation = "sdpa"
    model.config.use_cache = False
    file.write_text(json.dumps(model.config.to_dict()))
    length = 0 if model.config.model_type == "vit" else LENGTH
    made = subprocess.run([program, str(file), str(length)], capture_output=True, text=True)
    if made.returncode != 0:
        raise AssertionError(made.stderr)
    graph = json.loads(made.stdout)
    runner = ConfigRunner(graph, model)
    for batch in (1, 3):
        inputs = inputs_of(model, batch)
        model.zero_grad()
        expected = model(**inputs).loss
        expected.backward()
        (loss, gradients), = runner.step([[inputs[i["name"]] for i in graph["inputs"]]], check_meta=True)
        compare(f"loss of batch {batch}", loss, float(expected.detach().double()), 1.0)
        # An expert that no token chose has no gradient.
        theirs = grouped({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()})
        total = float(torch.stack([g.double().norm() for g in theirs.values()]).norm())
        for name, gradient in theirs.items():
            compare(f"gradient of {name}", float((gradients[name] - gradient).double().norm()), 0.0, total)


if __name__ == "__main__":
    main()
