#!/usr/bin/env python3
"""The same job over the `host` backend and over MPI (a real OpenMPI): equal losses, and nothing left behind."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

NUM_STEPS = 6
TOLERANCE = 1e-6  # sums of two addends are exact in any order; more ranks may add in another order
SKIPPED = 77
JOB = """name: backends
model: {model}
data: {data}
validation: {{fraction: 0.1, every_steps: 3, steps: 1}}
batch: {{global: 8}}
optimizer: {{name: adamw, learning_rate: 1.0e-3, clip_grad_norm: 1.0}}
train: {{steps: {steps}, seed: 1}}
plan: {plan}
"""


GPT = ("{config: {model_type: gpt2, n_layer: 2, n_head: 2, n_embd: 32, vocab_size: 256, n_positions: 16, resid_pdrop: 0.1}}",
       "{text: text.txt, sequence_length: 16, seed: 7}")


def train(launch, folder, plan, backend, devices, model, data):
    (folder / "job.yaml").write_text(JOB.format(steps=NUM_STEPS, plan=plan, model=model, data=data))
    results = folder / f"run-{backend}"
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    command = [launch, "train", folder / "job.yaml", "--devices", devices, "--backend", backend, "--run-dir", results]
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, env=environment)
    if finished.returncode != 0:
        raise AssertionError(f"--backend {backend} exited {finished.returncode}\n{finished.stdout}\n{finished.stderr}")
    return [json.loads(line) for line in (results / "metrics.jsonl").read_text().splitlines()]


def compare(host, mpi, plan):
    assert len(host) == len(mpi) == NUM_STEPS, (len(host), len(mpi))
    for ours, theirs in zip(host, mpi):
        for name in ("loss", "grad_norm", "validation_loss"):
            if name not in ours and name not in theirs:
                continue
            difference = abs(ours[name] - theirs[name]) / abs(ours[name])
            assert difference <= TOLERANCE, f"{plan} step {ours['step']}: {name} {ours[name]} over host, {theirs[name]} over MPI"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--launch", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True, help="from tests/model/make_models.py")
    arguments = parser.parse_args()
    if not (arguments.launch.parent / "coxswain_mpi.so").exists() or not shutil.which("mpirun"):
        print("no MPI here")
        return SKIPPED
    # Padded text with ignored labels, out of a file of tensors.
    bert = (f"{{pt2: {arguments.models / 'bert.pt2'}}}", f"{{tensors: {arguments.models / 'bert.safetensors'}, seed: 7}}")
    cases = (
        ("2xcpu", "{data: 1, pipeline: 2, micro: 2}", GPT),
        ("3xcpu", "{data: 3, pipeline: 1, micro: 8, samples: [3, 3, 2]}", GPT),
        ("2xcpu", "{data: 2, pipeline: 1, micro: 8, samples: [5, 3]}", bert),
    )
    for devices, plan, (model, data) in cases:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-backend-"))
        try:
            (folder / "text.txt").write_text("In the beginning God created the heaven and the earth.\n" * 400)
            compare(*(train(arguments.launch, folder, plan, backend, devices, model, data) for backend in ("host", "mpi")), plan)
        except BaseException:
            print(f"kept for a look: {folder}", file=sys.stderr)
            raise
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
