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


def main():
    folder = pathlib.Path(sys.argv[1])
    wanted = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest() + " " + make_fixtures.stamp()
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
        coxswain.export(module, inputs, folder / f"{name}.pt2")
        expectations[name] = {
            "batch": inputs[0].shape[0],
            "saved_bytes": saved_bytes(module, inputs),
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


def flops(module, inputs):
    from torch.utils.flop_counter import FlopCounterMode

    from coxswain.transformers_masks import traceable_masks

    counter = FlopCounterMode(display=False)
    with counter, traceable_masks():
        loss = module(*inputs)
    forward = counter.get_total_flops()
    counter = FlopCounterMode(display=False)
    with counter:
        loss.backward()
    module.zero_grad(set_to_none=True)
    return {"forward_flop": forward, "backward_flop": counter.get_total_flops()}


def modules():
    import torch
    from model import Gpt, GptConfig
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    result = {}

    def add(name, module, length, vocabulary, config=None):
        tokens = torch.randint(vocabulary, (2, length))
        result[name] = (module, (tokens, torch.randint(vocabulary, (2, length))), config)

    torch.manual_seed(3)
    for layers in (2, 3):
        add(f"saved_gpt_{layers}", Gpt(GptConfig(layers, 64, 4, 32, 96, 0.0)), 32, 96)
        gpt2 = GPT2Config(n_layer=layers, n_embd=64, n_head=4, n_positions=32, vocab_size=96, use_cache=False, embd_pdrop=0.0,
                          resid_pdrop=0.0, attn_pdrop=0.0)
        llama = LlamaConfig(hidden_size=64, intermediate_size=160, num_hidden_layers=layers, num_attention_heads=4,
                            num_key_value_heads=2, vocab_size=96, max_position_embeddings=32, use_cache=False)
        for name, config, kind in (("gpt2", gpt2, GPT2LMHeadModel), ("llama", llama, LlamaForCausalLM)):
            config._attn_implementation = "sdpa"
            config.loss_type = "ForCausalLM"
            add(f"saved_{name}_{layers}", make_fixtures.with_loss(kind(config)), 32, 96, config.to_dict())
    return result


if __name__ == "__main__":
    main()
