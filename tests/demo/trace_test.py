#!/usr/bin/env python3
"""`launch train --trace-steps 3-4` on two CPU devices, of one node and of two: what the trace must hold for every action of
the run's plan."""

import argparse
import collections
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

NUM_STEPS = 5
STEPS = (3, 4)
COMPUTE = 0  # the thread of the compute stream
TOLERANCE = 0.0021  # microseconds: start and duration are each rounded to a nanosecond
JOB = """name: traced
model: {{config: {{model_type: gpt2, n_layer: 4, n_head: 2, n_embd: 32, vocab_size: 256, n_positions: 16, resid_pdrop: 0.0}}}}
data: {{text: text.txt, sequence_length: 16, seed: 7}}
batch: {{global: 8}}
optimizer: {{name: adamw, learning_rate: 1.0e-3}}
train: {{steps: {steps}, seed: 1}}
plan: {plan}
"""


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def commands(launch, folder, num_nodes):
    """One line a node; the second node has its own run directory."""
    line = [launch, "train", folder / "job.yaml", "--trace-steps", f"{STEPS[0]}-{STEPS[1]}"]
    if num_nodes == 1:
        return [line + ["--devices", "2xcpu", "--run-dir", folder / "run"]]
    token = folder / "token"
    token.write_text("secret of this test\n")
    token.chmod(0o600)
    line += ["--devices", "1xcpu", "--nnodes", num_nodes, "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--token-file", token]
    return [line + ["--node-rank", node, "--run-dir", folder / ("run" if node == 0 else f"node-{node}")] for node in range(num_nodes)]


def train(launch, folder, plan, num_nodes):
    """The run directory, after a run that was traced."""
    (folder / "text.txt").write_text("In the beginning God created the heaven and the earth.\n" * 400)
    (folder / "job.yaml").write_text(JOB.format(steps=NUM_STEPS, plan=plan))
    nodes = [subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
             for command in commands(launch, folder, num_nodes)]
    try:
        outputs = [node.communicate(timeout=120) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    check([node.returncode for node in nodes] == [0] * num_nodes, outputs)
    check("trace/steps_3-4.json" in outputs[0][0], f"the trace is not named: {outputs}")
    check(not list(folder.glob("node-*/trace")), "a trace beside the one of node 0")
    return folder / "run"


def lists_by_rank(document):
    """The plan's action lists, rank by rank: ranks count by stage, then replica."""
    lists = []
    for stage, shape in enumerate(document["stages"]):
        for replica in range(len(shape["replicas"])):
            lists.append(next(role["actions"] for role in document["roles"] if role["stage"] == stage and replica in role["replicas"]))
    return lists


def spans(trace, category):
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and event["cat"] == category]


def check_every_action_once(events, lists):
    """On the measured threads: each action of each rank's list once a step, with its numbers."""
    for rank, actions in enumerate(lists):
        for step in STEPS:
            own = [e for e in events if e["pid"] == rank and e["args"]["step"] == step and not e["name"].startswith(("wait ", "step "))]
            check(collections.Counter(e["name"] for e in own) == collections.Counter(actions), f"rank {rank} step {step}: {[e['name'] for e in own]}, the list is {actions}")
            for event in own:
                arguments = event["args"]
                check(actions[arguments["action"]] == event["name"], f"index of {event}")
                check(event["dur"] >= 0 and abs(event["dur"] / 1e3 - arguments["measured_ms"]) < 1e-3, f"duration of {event}")
                check(arguments["predicted_ms"] >= 0 and arguments["predicted_start_ms"] >= 0, f"prediction of {event}")
                if arguments["predicted_ms"] > 0.001:
                    check(abs(arguments["ratio"] * arguments["predicted_ms"] - arguments["measured_ms"]) < 0.01 * arguments["measured_ms"] + 0.01, f"ratio of {event}")


def end_of(event):
    return event["ts"] + event["dur"]


def check_order(events, lists):
    for rank, actions in enumerate(lists):
        for step in STEPS:
            own = {e["name"]: e for e in events if e["pid"] == rank and e["args"]["step"] == step and not e["name"].startswith("wait ")}
            for name in actions:
                if backward := re.fullmatch(r"B(\d+)(\[.*\))", name):
                    forward = next(e for n, e in own.items() if n.startswith(f"F{backward[1]}["))
                    check(own[name]["ts"] >= end_of(forward) - TOLERANCE, f"rank {rank}: {name} begins before its forward ends")
        for thread in {e["tid"] for e in events if e["pid"] == rank}:
            line = sorted((e for e in events if e["pid"] == rank and e["tid"] == thread), key=lambda e: (e["ts"], end_of(e)))
            for before, after in zip(line, line[1:]):
                check(after["ts"] >= end_of(before) - TOLERANCE, f"rank {rank} thread {thread}: {after} begins inside {before}")


def check_predicted(trace, lists, simulated_seconds):
    """The predicted threads: every action once a step; compute is predicted to take time."""
    events = spans(trace, "predicted")
    for rank, actions in enumerate(lists):
        for step in STEPS:
            names = collections.Counter(e["name"] for e in events if e["pid"] == rank and e["args"]["step"] == step and not e["name"].startswith("wait "))
            check(names == collections.Counter(actions), f"predicted, rank {rank} step {step}: {names}")
    check(sum(e["dur"] for e in events if re.match(r"[FB]\d", e["name"])) > 0, "computation is predicted to take no time")
    check(abs(trace["otherData"]["predicted_step_seconds"] - simulated_seconds) <= 1e-9, "another prediction than the plan's")


def check_between_ranks(events):
    """One clock: what is received ends after what was sent has begun."""
    for step in STEPS:
        for send in (e for e in events if e["args"]["step"] == step and e["name"].startswith("SEND_")):
            receives = [e for e in events if e["args"]["step"] == step and e["name"] == send["name"].replace("SEND", "RECV")]
            check(receives and all(end_of(e) > send["ts"] for e in receives), f"{send} and {receives}")


def check_clocks(clocks, num_nodes):
    """All nodes are this machine, so the true offset is 0."""
    check([clock["rank"] for clock in clocks] == list(range(len(clocks))), clocks)
    check(len({clock["node"] for clock in clocks}) == num_nodes, clocks)
    for clock in clocks:
        check(abs(clock["offset_seconds"]) <= clock["error_seconds"] < 1, clock)
        check((clock["error_seconds"] > 0) == (clock["node"] != clocks[0]["node"]), clock)


def check_trace(results, num_nodes):
    document = json.loads((results / "plan-1.json").read_text())
    trace = json.loads((results / "trace/steps_3-4.json").read_text())
    check((results / "trace/steps_3-4.json").stat().st_mode & 0o077 == 0, "others may read the trace")
    lists = lists_by_rank(document["plan"])
    events = spans(trace, "measured")
    check({e["args"]["step"] for e in events} == set(STEPS), "other steps than those that were asked for")
    check(trace["otherData"]["steps"] == list(STEPS), trace["otherData"])
    check_clocks(trace["otherData"]["clocks"], num_nodes)
    check_every_action_once(events, lists)
    check_order(events, lists)
    check_between_ranks(events)
    check_predicted(trace, lists, document["estimate"]["step_seconds"])
    for row in (json.loads(line) for line in (results / "metrics.jsonl").read_text().splitlines()):
        if row["step"] in STEPS:
            longest = max(e["args"]["measured_ms"] for e in events if e["name"] == f"step {row['step']}")
            check(abs(longest / 1e3 - row["step_seconds"]) < 1e-6, f"step {row['step']}: {longest} ms in the trace, {row['step_seconds']} s in metrics.jsonl")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--launch", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    pipeline, replicas = "{data: 1, pipeline: 2, micro: 2}", "{data: 2, pipeline: 1, micro: 4, samples: [3, 1]}"
    for plan, num_nodes in ((replicas, 1), (pipeline, 2)):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-trace-"))
        try:
            check_trace(train(arguments.launch, folder, plan, num_nodes), num_nodes)
        except BaseException:
            print(f"kept for a look: {folder}", file=sys.stderr)
            raise
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
