#!/usr/bin/env python3
"""The demo, 20 steps long: export, text, probe, plan, train on two CPU devices, and what the run left behind."""

import argparse
import json
import math
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import short_job

NUM_STEPS = 20
METRICS = (
    "step generation loss grad_norm learning_rate step_seconds predicted_step_seconds tokens_per_second "
    "model_flops_utilization bubble_fraction peak_memory_bytes predicted_peak_memory_bytes"
).split()


def run(*command):
    """Its output goes to ours; a failure ends the test with the command's name."""
    print("+", " ".join(str(word) for word in command), flush=True)
    finished = subprocess.run([str(word) for word in command], timeout=240)
    if finished.returncode != 0:
        raise AssertionError(f"{command[0]} exited {finished.returncode}")


def make_example(source, folder):
    run(source / ".venv/bin/python", source / "examples/gpt/export.py", "--out", folder / "gpt.pt2")
    run("sh", source / "examples/gpt/text.sh", folder / "kjv.txt")
    job = (source / "examples/gpt/job.yaml").read_text(encoding="ascii")
    (folder / "job.yaml").write_text(short_job.shorten(job, NUM_STEPS), encoding="ascii")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def check_metrics(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    check([row["step"] for row in rows] == list(range(1, NUM_STEPS + 1)), "one row a step, in order")
    for row in rows:
        missing = [name for name in METRICS if name not in row]
        check(not missing, f"step {row['step']} lacks {missing}")
    # Untrained, 256 equally likely bytes cost ln 256 nats; English text read byte by byte, without context, costs 3.1.
    first, last = rows[0]["loss"], rows[-1]["loss"]
    check(abs(first - math.log(256)) < 0.2, f"first loss {first}, expected about {math.log(256)}")
    check(last < 4.0, f"last loss {last}: it does not learn")
    check("validation_loss" in rows[-1], "no validation loss at the last step")


def check_owner_only(folder):
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        check(mode & 0o077 == 0, f"{path} may be read by others: mode {mode:o}")


def check_no_process(folder):
    """No process that names this run is left."""
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        check(os.fsencode(folder) not in command, f"process {entry.name} is left: {command}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--launch", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-demo-"))
    try:
        make_example(arguments.source, folder)
        results = folder / "run"
        run(arguments.launch, "train", folder / "job.yaml", "--devices", "2xcpu", "--run-dir", results)
        for name in ("job.yaml", "cluster.json", "profile.json", "plan-1.json", "metrics.jsonl", "events.jsonl"):
            check((results / name).is_file(), f"no {name} in the run directory")
        check_metrics(results / "metrics.jsonl")
        check_owner_only(results)
        check_no_process(folder)
    except BaseException:
        print(f"kept for a look: {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
