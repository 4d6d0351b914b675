"""Writes what PyTorch eager does on the fixture GPT: `python make_eager.py FIXTURES` -> FIXTURES/eager.json, eager.txt.

20 steps with dropout off on windows from an independent Philox (bench/peers/eager_gpt.py), then validation; the same 20
steps once more under torch.autocast with bfloat16.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "peers"))

import eager_gpt  # noqa: E402


def main():
    folder = pathlib.Path(sys.argv[1])
    text = folder / "eager.txt"
    # Bytes below 64, the fixture's vocabulary, with some structure to learn.
    state, data = 1, bytearray()
    for i in range(6000):
        state = (state * 1103515245 + 12345) % 2**31
        data.append((i * 7 + (state >> 16) % 5) % 64)
    text.write_bytes(bytes(data))

    options = eager_gpt.make_parser().parse_args(
        [str(folder / "gpt_four_layers.pt2"), str(text), "--sequence", "16", "--batch", "32", "--total-steps", "20",
         "--warmup", "5", "--learning-rate", "0.003", "--fraction", "0.25"])
    trainer = eager_gpt.Trainer(options)
    steps = [trainer.step() for _ in range(20)]
    import torch

    mixed = eager_gpt.Trainer(options)
    mixed.module.forward = torch.autocast("cpu", dtype=torch.bfloat16)(mixed.module.forward)
    result = {
        "autocast": [mixed.step()["loss"] for _ in range(20)],
        "steps": [{k: s[k] for k in ("loss", "grad_norm", "learning_rate")} for s in steps],
        "validation": trainer.validate(2),
        "permutation": eager_gpt.permutation(7, 3, 100),
        "parameters": {name: p.detach().flatten().tolist() for name, p in trainer.module.named_parameters()},
        # 32 consecutive elements of sample 9 of operator 5 in step 3: counters 0..7, eight words 0, eight words 1, ...
        "dropout_words": eager_gpt.philox(
            eager_gpt.philox_key(1234, "dropout"),
            eager_gpt.numpy.array([[lane, 9, 5, 3] for lane in range(8)], dtype=eager_gpt.numpy.uint64)).T.flatten().tolist(),
    }
    (folder / "eager.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
