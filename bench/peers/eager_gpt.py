"""Trains the example GPT in plain PyTorch eager, on the windows and the learning rates of docs and DESIGN, written anew.

    eager_gpt.py MODEL.pt2 TEXT --steps 20            one JSON object a step: loss, grad_norm, learning_rate, seconds
    eager_gpt.py MODEL.pt2 TEXT --serve               for each line N on stdin: N steps, then one JSON object

The weights come out of the archive; its dropout is on with --dropout, from PyTorch's own generator.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import numpy

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "gpt"))

U32 = numpy.uint64(0xFFFFFFFF)


def philox(key, counters):
    """Philox 4x32-10 (Salmon et al. 2011) for an array of counters [n, 4]; returns [n, 4] of 32-bit words."""
    c = [counters[:, i].astype(numpy.uint64) for i in range(4)]
    k = [numpy.uint64(key[0]), numpy.uint64(key[1])]
    for _ in range(10):
        p0 = numpy.uint64(0xD2511F53) * c[0]
        p1 = numpy.uint64(0xCD9E8D57) * c[2]
        shift = numpy.uint64(32)
        c = [(p1 >> shift) ^ c[1] ^ k[0], p1 & U32, (p0 >> shift) ^ c[3] ^ k[1], p0 & U32]
        k = [(k[0] + numpy.uint64(0x9E3779B9)) & U32, (k[1] + numpy.uint64(0xBB67AE85)) & U32]
    return numpy.stack(c, 1)


def philox_key(seed, stream):
    state = 0xCBF29CE484222325  # FNV-1a, 64 bits
    for byte in stream.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    state ^= seed
    return state & 0xFFFFFFFF, state >> 32


def permutation(seed, epoch, count):
    counters = numpy.zeros((count, 4), dtype=numpy.uint64)
    counters[:, 0] = numpy.arange(count)
    counters[:, 1] = epoch & 0xFFFFFFFF
    counters[:, 2] = epoch >> 32
    words = philox(philox_key(seed, "data"), counters)
    numbers = (words[:, 0] | (words[:, 1] << numpy.uint64(32))).tolist()
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = numbers[i] % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


class Windows:
    def __init__(self, text, sequence, seed, fraction):
        self.bytes = numpy.frombuffer(pathlib.Path(text).read_bytes(), dtype=numpy.uint8)
        self.sequence, self.seed = sequence, seed
        self.first_of_tail = len(self.bytes) - math.floor(len(self.bytes) * fraction)
        self.count = (self.first_of_tail - 1) // sequence
        self.orders = {}

    def _rows(self, starts):
        import torch

        window = torch.tensor(numpy.stack([self.bytes[s:s + self.sequence + 1] for s in starts]).astype(numpy.int64))
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()

    def training(self, step, batch):
        starts = []
        for position in range((step - 1) * batch, step * batch):
            epoch, place = divmod(position, self.count)
            if epoch not in self.orders:
                self.orders[epoch] = permutation(self.seed, epoch, self.count)
            starts.append(self.orders[epoch][place] * self.sequence)
        return self._rows(starts)

    def validation(self, index, batch):
        return self._rows([self.first_of_tail + i * self.sequence for i in range(index * batch, (index + 1) * batch)])


def learning_rate(step, peak, warmup, total, ratio):
    if step <= warmup:
        return peak * step / warmup
    return peak * (ratio + (1 - ratio) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2)


def load_model(archive, heads, dropout):
    import torch
    from model import Gpt, GptConfig

    state = dict(torch.export.load(archive).state_dict)
    vocabulary, width = state["token_embedding.weight"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    module = Gpt(GptConfig(layers, width, heads, state["position_embedding.weight"].shape[0], vocabulary, dropout))
    state.setdefault("head.weight", state["token_embedding.weight"])
    module.load_state_dict(state)
    return module


class Trainer:
    def __init__(self, options):
        import torch

        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.options = options
        self.torch = torch
        self.module = load_model(options.model, options.heads, 0.1 if options.dropout else 0.0)
        self.module.train(options.dropout)
        self.windows = Windows(options.text, options.sequence, options.data_seed, options.fraction)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=options.learning_rate, betas=(0.9, 0.95),
                                           eps=1e-8, weight_decay=0.1, fused=options.fused)
        self.scaler = None  # torch.amp.GradScaler, for float16
        self.step_number = 0

    def step(self):
        options, torch = self.options, self.torch
        self.step_number += 1
        start = time.perf_counter()
        rate = learning_rate(self.step_number, options.learning_rate, options.warmup, options.total_steps, options.min_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        tokens, targets = self.windows.training(self.step_number, options.batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.module(tokens, targets)
        if self.scaler:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
        else:
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), options.clip)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        return {"step": self.step_number, "loss": float(loss.detach()), "grad_norm": float(norm), "learning_rate": rate,
                "seconds": time.perf_counter() - start}

    def validate(self, steps):
        self.module.eval()
        with self.torch.no_grad():
            losses = [float(self.module(*self.windows.validation(i, self.options.batch))) for i in range(steps)]
        self.module.train(self.options.dropout)
        return losses


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--total-steps", type=int, default=300)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--data-seed", type=int, default=7)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--min-ratio", type=float, default=0.1)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--validate", type=int, default=0)
    parser.add_argument("--dropout", action="store_true")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW")
    parser.add_argument("--serve", action="store_true")
    return parser


def main():
    options = make_parser().parse_args()
    trainer = Trainer(options)
    if options.serve:
        print(json.dumps({"torch": trainer.torch.__version__}), flush=True)
        for line in sys.stdin:
            steps = [trainer.step() for _ in range(int(line))]
            print(json.dumps({"seconds": sum(s["seconds"] for s in steps), "loss": steps[-1]["loss"]}), flush=True)
        return
    for _ in range(options.steps):
        print(json.dumps(trainer.step()), flush=True)
    if options.validate:
        print(json.dumps({"validation": trainer.validate(options.validate)}))


if __name__ == "__main__":
    main()
