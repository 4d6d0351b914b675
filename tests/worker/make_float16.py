"""Writes what PyTorch does in float16 and with numbers that are not finite: `python make_float16.py FIXTURES`.

float16.json: steps of the fixture GPT under torch.autocast and torch.amp.GradScaler, from the usual scale and from one
that overflows; the scaler's own answers to a sequence of good and bad steps; and a model whose weights hold an infinity
(not_finite.pt2, not_finite.txt) trained with bad steps left out. Needs what make_fixtures.py and make_eager.py write.
"""

import json
import math
import pathlib
import sys

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "peers"))
sys.path.insert(0, str(ROOT / "python"))

import eager_gpt  # noqa: E402

OVERFLOWING_SCALE = 2.0**24
SEQUENCE, BATCH, STEPS = 16, 8, 8
BAD_TOKEN = 63


def finite_or_none(value):
    return value if math.isfinite(value) else None


def train_gpt(folder, scale, steps):
    import torch

    options = eager_gpt.make_parser().parse_args(
        [str(folder / "gpt_four_layers.pt2"), str(folder / "eager.txt"), "--sequence", "16", "--batch", "32",
         "--total-steps", str(steps), "--warmup", "5", "--learning-rate", "0.003", "--fraction", "0.25"])
    trainer = eager_gpt.Trainer(options)
    trainer.module.forward = torch.autocast("cpu", dtype=torch.float16)(trainer.module.forward)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    result = []
    for _ in range(steps):
        before = trainer.scaler.get_scale()
        step = trainer.step()
        result.append({"loss": step["loss"], "grad_norm": finite_or_none(step["grad_norm"]), "scale": before,
                       "skipped": trainer.scaler.get_scale() < before})
    return result


def scaler_answers():
    """[number of steps, whether they are finite, scale afterwards], in turn."""
    import torch

    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    scaler = torch.amp.GradScaler("cpu")
    answers = []
    for count, finite in [(1, False), (1, True), (1, False), (1999, True), (1, True), (1999, True), (2, False),
                          (2000, True), (1999, True), (3, False), (6000, True)]:
        for _ in range(count):
            scaler.scale(torch.zeros(1))  # makes the scale at the first call
            parameter.grad = torch.tensor([1.0 if finite else math.inf])
            scaler.step(optimizer)
            scaler.update()
        answers.append([count, finite, scaler.get_scale()])
    return answers


def make_module():
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 16, bias=False)

        def forward(self, x):
            return x + functional.gelu(self.linear(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(64, 16)
            self.blocks = nn.ModuleList(Block() for _ in range(3))
            self.head = nn.Linear(16, 64, bias=False)

        def forward(self, tokens, targets):
            x = self.embedding(tokens)
            for block in self.blocks:
                x = block(x)
            return functional.cross_entropy(self.head(x).flatten(0, 1), targets.flatten())

    torch.manual_seed(5)
    module = Model()
    with torch.no_grad():
        module.embedding.weight[BAD_TOKEN] = math.inf
    return module


def make_text(file):
    """Token 63 stands in the last sample of step 2 and in the first one of steps 5 and 6."""
    data = bytearray((i * 7 + i * i % 5) % 60 for i in range(3000))
    file.write_bytes(bytes(data))
    windows = eager_gpt.Windows(file, SEQUENCE, 7, 0.25)
    order = eager_gpt.permutation(7, 0, windows.count)
    for sample in (2 * BATCH - 1, 4 * BATCH, 5 * BATCH):
        data[order[sample] * SEQUENCE + 3] = BAD_TOKEN
    file.write_bytes(bytes(data))


def train_not_finite(folder):
    import torch

    import coxswain

    make_text(folder / "not_finite.txt")
    module = make_module()
    example = torch.zeros(4, SEQUENCE, dtype=torch.int64)
    coxswain.export(module, {"tokens": example, "targets": example}, folder / "not_finite.pt2", dynamic_batch=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.003, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    windows = eager_gpt.Windows(folder / "not_finite.txt", SEQUENCE, 7, 0.25)
    losses = []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = eager_gpt.learning_rate(step, 0.003, 5, STEPS, 0.1)
        optimizer.zero_grad(set_to_none=True)
        loss = module(*windows.training(step, BATCH))
        losses.append(finite_or_none(float(loss.detach())))
        if losses[-1] is None:
            continue
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    return losses


def main():
    import torch

    torch.set_num_threads(1)
    folder = pathlib.Path(sys.argv[1])
    result = {
        "steps": train_gpt(folder, 65536.0, 20),
        "overflowing": train_gpt(folder, OVERFLOWING_SCALE, 6),
        "scaler": scaler_answers(),
        "not_finite": train_not_finite(folder),
    }
    (folder / "float16.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
