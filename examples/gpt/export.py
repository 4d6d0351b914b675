"""Writes the example GPT as a .pt2 archive: `python export.py --out gpt.pt2`."""

import argparse
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

import coxswain  # noqa: E402
from model import Gpt, GptConfig  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpt.pt2"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4, help="samples of the recorded step; training may use any number")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--static-batch", action="store_true", help="bake the batch in")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    module = Gpt(GptConfig(arguments.layers, arguments.width, arguments.heads, arguments.context, arguments.vocabulary,
                           arguments.dropout))
    window = torch.randint(arguments.vocabulary, (arguments.batch, arguments.context + 1))
    report = coxswain.export(module, (window[:, :-1], window[:, 1:]), arguments.out,
                             dynamic_batch=not arguments.static_batch)
    print(f"{report.path}: {report.num_parameters:,} parameters, "
          f"{'any batch' if report.dynamic_batch else f'batch {arguments.batch}'}, loss {report.loss:.6f} at initialisation")


if __name__ == "__main__":
    main()
