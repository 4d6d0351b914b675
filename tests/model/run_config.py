"""Runs graphs built from a Hugging Face config.json in PyTorch, with transformers' weights, and compares loss, gradients,
gradients' names and shapes with transformers' own model: `run_config.py DUMP_GRAPH`."""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch

from run_graph import Runner, compare

LENGTH = 12


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
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    small = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 16, "vocab_size": 64}
    tiny = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64,
            "max_position_embeddings": 16}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    return {
        "gpt2": GPT2LMHeadModel(GPT2Config(**small)),
        "gpt2, untied, gelu, narrow mlp": GPT2LMHeadModel(
            GPT2Config(**small, tie_word_embeddings=False, activation_function="gelu", n_inner=40, layer_norm_epsilon=1e-3)),
        "gpt2, tanh gelu": GPT2LMHeadModel(GPT2Config(**small, activation_function="gelu_pytorch_tanh")),
        "gpt2, relu": GPT2LMHeadModel(GPT2Config(**small, activation_function="relu")),
        "llama": LlamaForCausalLM(LlamaConfig(**tiny)),
        "llama, grouped, tied, biases": LlamaForCausalLM(
            LlamaConfig(**tiny, num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_theta=500.0)),
        "llama, wide heads, padding": LlamaForCausalLM(LlamaConfig(**tiny, head_dim=16, pad_token_id=3, rms_norm_eps=1e-3)),
        "llama, linear scaling": LlamaForCausalLM(LlamaConfig(**tiny, rope_scaling={"rope_type": "linear", "factor": 3.0})),
        "llama 3": LlamaForCausalLM(LlamaConfig(**tiny, rope_scaling=llama3)),
    }


class ConfigRunner(Runner):
    """Weights by name from a transformers model; buffers from the graph."""

    def __init__(self, graph, model):
        self.graph = graph
        named = dict(model.named_parameters())
        ours = {p["name"]: p["dims"] for p in graph["parameters"]}
        theirs = {name: list(p.shape) for name, p in named.items()}
        if ours != theirs:
            raise AssertionError(f"parameters differ: ours {ours}, theirs {theirs}")
        everything = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        tied = {name for p in graph["parameters"] for name in p["tied"]}
        if set(ours) | tied != everything:
            raise AssertionError(f"tied names differ: {tied}, expected {everything - set(ours)}")
        self.parameters = {p["value"]: named[p["name"]].detach().clone().requires_grad_() for p in graph["parameters"]}
        self.buffers = {b["value"]: torch.tensor([float.fromhex(x) for x in b["content"]]) for b in graph["buffers"]}


def check(program, file, model):
    model.eval()
    model.config._attn_implementation = "sdpa"
    file.write_text(json.dumps(model.config.to_dict()))
    graph = json.loads(subprocess.run([program, str(file), str(LENGTH)], check=True, capture_output=True, text=True).stdout)
    runner = ConfigRunner(graph, model)
    for batch in (1, 3):
        tokens = torch.randint(64, (batch, LENGTH))
        labels = tokens.clone()
        labels[0, :3] = -100
        model.zero_grad()
        expected = model(input_ids=tokens, labels=labels, use_cache=False).loss
        expected.backward()
        (loss, gradients), = runner.step([[tokens, labels]], check_meta=True)
        compare(f"loss of batch {batch}", loss, float(expected.detach().double()), 1.0)
        total = float(torch.stack([p.grad.double().norm() for p in model.parameters()]).norm())
        for name, parameter in model.named_parameters():
            compare(f"gradient of {name}", float((gradients[name] - parameter.grad).double().norm()), 0.0, total)


if __name__ == "__main__":
    main()
