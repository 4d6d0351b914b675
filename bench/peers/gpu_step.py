"""Times training steps of GPT-2 shapes on one CUDA device: eager PyTorch, autocast to bfloat16, fused AdamW.

What `launch plan --cluster 1x1xh200` predicts from the catalogue is held against this; Coxswain itself does not run
on a GPU yet. Prints one JSON object a shape: seconds of a step (median), peak bytes of the allocator.
"""
import json
import statistics
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel

# width, layers, heads, rows of a sample, samples
SHAPES = [
    (1024, 24, 16, 1024, 8),
    (1024, 24, 16, 1024, 16),
    (2048, 24, 16, 1024, 4),
    (2048, 24, 16, 1024, 8),
    (4096, 8, 32, 2048, 4),
]
WARM_UP, STEPS = 3, 8


def time_steps(width, layers, heads, rows, samples):
    config = GPT2Config(
        n_embd=width, n_layer=layers, n_head=heads, n_positions=rows, vocab_size=50304,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, use_cache=False,
    )
    config._attn_implementation = "sdpa"
    model = GPT2LMHeadModel(config).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, 50304, (samples, rows), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(WARM_UP + STEPS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    peak = torch.cuda.max_memory_allocated()
    del model, optimizer
    torch.cuda.empty_cache()
    return {"seconds": statistics.median(seconds[WARM_UP:]), "peak_bytes": peak}


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}))
    for shape in SHAPES:
        names = ("width", "layers", "heads", "rows", "samples")
        print(json.dumps({**dict(zip(names, shape)), **time_steps(*shape)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
