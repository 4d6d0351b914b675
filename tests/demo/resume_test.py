#!/usr/bin/env python3
"""`launch train` that is stopped, killed, loses a rank, or finds its newest checkpoint damaged, and goes on: the losses of a run that was
never disturbed, to the bit under the same plan, within 1e-5 under another."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

NUM_STEPS = 60
EVERY = 4
STOPPED = 75
TOLERANCE = 1e-5
TIME_LIMIT = 120
REPLICAS = "{data: 2, pipeline: 1, micro: 4, samples: [3, 1]}"
PIPELINE = "{data: 1, pipeline: 2, micro: 2}"
JOB = """name: resumed
model: {{config: {{model_type: gpt2, n_layer: 4, n_head: 2, n_embd: 32, vocab_size: 256, n_positions: 16, resid_pdrop: 0.1}}}}
data: {{text: text.txt, sequence_length: 16, seed: 7}}
batch: {{global: {batch}}}
optimizer: {{name: adamw, learning_rate: 1.0e-3, warmup_steps: 10, decay: cosine}}
train: {{steps: {steps}, seed: 1, log_every: 1}}
checkpoint: {{directory: {directory}, every_steps: {every}, keep: 2}}
plan: {plan}
"""


def check(condition, what):
    if not condition:
        raise AssertionError(what)


class Runs:
    def __init__(self, launch, folder):
        self.launch, self.folder, self.count = launch, folder, 0
        self.plans = {}  # by the job's plan: the file of the first run
        (folder / "text.txt").write_text("In the beginning God created the heaven and the earth.\n" * 400)

    def start(self, plan, directory, *flags, steps=NUM_STEPS, batch=8, every=EVERY):
        self.count += 1
        self.results = self.folder / f"run-{self.count}"
        job = self.folder / f"job-{self.count}.yaml"
        job.write_text(JOB.format(plan=plan, directory=directory, steps=steps, batch=batch, every=every))
        # What was measured for a plan stands beside it, so that later runs need not measure.
        found = self.plans.get(plan)
        known = ["--plan", found] if found and batch == 8 else []
        self.plans.setdefault(plan, self.results / "plan-1.json")
        command = [self.launch, "train", job, "--devices", "2xcpu", "--run-dir", self.results, *known, *flags]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, run, code):
        output = run.communicate(timeout=TIME_LIMIT)
        check(run.returncode == code, f"exit {run.returncode}, not {code}: {output}")
        return "".join(output)

    def train(self, *arguments, code=0, **options):
        return self.finish(self.start(*arguments, **options), code)

    def losses(self):
        rows = [json.loads(line) for line in (self.results / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row["loss"] for row in rows}

    def events(self, kind):
        events = [json.loads(line) for line in (self.results / "events.jsonl").read_text().splitlines()]
        return [event for event in events if event["type"] == kind]

    def wait_for_step(self, run, step):
        """Until the console shows it."""
        for line in run.stdout:
            if line.split()[:1] == [str(step)]:
                return
        raise AssertionError(f"the run ended before step {step}: {run.stderr.read()}")


def saved_steps(directory):
    return sorted(int(folder.name.removeprefix("step_")) for folder in directory.iterdir() if not folder.name.endswith(".partial"))


def check_continues(whole, losses, first):
    """The same bits from step `first` on."""
    check(losses == {step: whole[step] for step in range(first, NUM_STEPS + 1)}, (first, losses, whole))


def check_near(whole, losses, first):
    check(sorted(losses) == list(range(first, NUM_STEPS + 1)), sorted(losses))
    for step, loss in losses.items():
        check(abs(loss - whole[step]) <= TOLERANCE * whole[step], f"step {step}: {loss}, undisturbed {whole[step]}")


def check_stop(runs, whole):
    """SIGTERM: the step under way is saved, exit 75; the same line goes on."""
    directory = runs.folder / "stopped"
    run = runs.start(REPLICAS, directory, every=10**6)
    runs.wait_for_step(run, 5)
    run.send_signal(signal.SIGTERM)
    output = runs.finish(run, STOPPED)
    before = runs.losses()
    last = max(before)
    check(saved_steps(directory) == [last], f"{saved_steps(directory)} is saved after step {last}")
    check(f"after step {last}, which is saved" in output and f"--resume {directory}" in output, output)
    check([event["step"] for event in runs.events("checkpoint_saved")] == [last], runs.events("checkpoint_saved"))
    output = runs.train(REPLICAS, directory, every=10**6)
    check(f"resume: after step {last}" in output, output)
    check_continues(whole, runs.losses(), last + 1)
    check(saved_steps(directory) == [last, NUM_STEPS], saved_steps(directory))


def check_kill(runs, whole):
    """`kill -9` of launch takes everything with it; what was published is there."""
    directory = runs.folder / "killed"
    run = runs.start(REPLICAS, directory)
    runs.wait_for_step(run, 18)
    run.kill()
    run.communicate(timeout=TIME_LIMIT)
    saved = saved_steps(directory)
    check(len(saved) >= 2, saved)
    # The newest is damaged: the one before is taken. (One more may be there, which was to be removed.)
    before = saved[-2]
    shard = directory / f"step_{saved[-1]}" / "rank_0.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    runs.train(REPLICAS, directory)
    check_continues(whole, runs.losses(), before + 1)
    check(len(runs.events("checkpoint_rejected")) == 1, runs.events("checkpoint_rejected"))
    check([event["step"] for event in runs.events("checkpoint_loaded")] == [before], runs.events("checkpoint_loaded"))
    check([event["step"] for event in runs.events("checkpoint_saved")] == list(range(before + EVERY, NUM_STEPS + 1, EVERY)),
          runs.events("checkpoint_saved"))


def workers_of(pid):
    """Ranks beneath a process of this test."""
    parents, names = {}, {}
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        parents[int(status.parent.name)], names[int(status.parent.name)] = int(rest[1]), name

    def is_beneath(process):
        while process in parents and process != pid:
            process = parents[process]
        return process == pid

    return sorted(process for process, name in names.items() if name == "worker" and is_beneath(process))


def check_restart(runs, whole):
    """`kill -9` of a rank, twice: the run goes on by itself, from what the other rank has in memory."""
    run = runs.start(REPLICAS, runs.folder / "restarted")
    ranks = []
    for step in (10, 30):
        runs.wait_for_step(run, step)
        ranks.append(workers_of(run.pid))
        os.kill(ranks[-1][0], signal.SIGKILL)
    output = runs.finish(run, 0)
    # The first one is new, the other is the process that lost it; then that one is killed, and the new one stays.
    check(len(ranks[1]) == 2 and ranks[1][0] == ranks[0][1], ranks)
    again = [event for event in runs.events("generation_started") if event["generation"] > 1]
    check([event["kept_processes"] for event in again] == [1, 1], again)
    check([event["from"] for event in again] == ["memory", "memory"], again)
    logs = [[(runs.results / f"logs/generation_{generation}/{rank}/stderr").exists() for rank in (0, 1)] for generation in (1, 2, 3)]
    check(all(all(generation) for generation in logs), logs)
    check_continues(whole, runs.losses(), 1)
    failed, recovered = runs.events("worker_failed"), runs.events("recovered")
    check([event["cause"] for event in failed] == ["signal 9"] * 2, failed)
    check([event["generation"] for event in recovered] == [2, 3], recovered)
    check([event["steps_lost"] for event in recovered] == [0, 0], recovered)
    steps = [json.loads(line)["step"] for line in (runs.results / "metrics.jsonl").read_text().splitlines()]
    check(steps == list(range(1, NUM_STEPS + 1)), steps)
    check("generation 3 goes on after step" in output, output)
    check((runs.results / "plan-3.json").read_text() == (runs.results / "plan-1.json").read_text(), "another plan")


def check_restart_without_replica(runs, whole):
    """Nobody has what the killed rank had: the newest checkpoint is taken."""
    run = runs.start(PIPELINE, runs.folder / "restarted-pipeline")
    runs.wait_for_step(run, 18)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    runs.finish(run, 0)
    check_near(whole, runs.losses(), 1)
    again, recovered = runs.events("generation_started")[1:], runs.events("recovered")
    check([event["from"] for event in again] == ["checkpoint"], again)
    check(len(recovered) == 1 and 0 <= recovered[0]["steps_lost"] <= 2 * EVERY, recovered)


def check_two_nodes(runs, whole):
    """Two agents on one file system save and go on."""
    directory = runs.folder / "together"
    finish_nodes(start_nodes(runs, "together", [directory, directory]))
    check_near(whole, runs.losses(), 1)  # sums over TCP come in another order
    check(not runs.events("checkpoint_failed"), runs.events("checkpoint_failed"))
    check(saved_steps(directory) == [NUM_STEPS - EVERY, NUM_STEPS], saved_steps(directory))


def check_nodes_apart(runs, whole):
    """Each of two agents has a disk of its own. One loses all that is on it, and then a rank: the copies on the other are enough."""
    disks = [runs.folder / "disk-0", runs.folder / "disk-1"]
    nodes = start_nodes(runs, "apart", disks, PIPELINE)  # without a replica that would have it in memory
    runs.wait_for_step(nodes[0], 18)
    for folder in disks[1].iterdir():
        if not folder.name.endswith(".partial"):
            shutil.rmtree(folder)
    os.kill(workers_of(nodes[1].pid)[0], signal.SIGKILL)
    finish_nodes(nodes)
    check_near(whole, runs.losses(), 1)
    recovered = runs.events("recovered")
    check(len(recovered) == 1 and 0 <= recovered[0]["steps_lost"] <= 3 * EVERY, recovered)
    check(not runs.events("checkpoint_not_copied"), runs.events("checkpoint_not_copied"))
    for disk in disks:
        check(saved_steps(disk) == [NUM_STEPS - EVERY, NUM_STEPS], saved_steps(disk))
        shards = sorted(file.name for file in (disk / f"step_{NUM_STEPS}").iterdir())
        check(shards == ["manifest.json", "rank_0.safetensors", "rank_1.safetensors"], shards)


def check_new_disk(runs, whole):
    """The same run again from step 56, after node 1's disk was replaced: its rank fetches what it needs from node 0."""
    disks = [runs.folder / "disk-0", runs.folder / "disk-1"]
    shutil.rmtree(disks[0] / f"step_{NUM_STEPS}")
    for folder in disks[1].iterdir():
        shutil.rmtree(folder)
    finish_nodes(start_nodes(runs, "new-disk", disks))
    check_near(whole, runs.losses(), NUM_STEPS - EVERY + 1)
    check([event["step"] for event in runs.events("checkpoint_loaded")] == [NUM_STEPS - EVERY], runs.events("checkpoint_loaded"))


def check_notice(runs):
    """A scheduler's notice to one node: the run is saved, and all of it ends."""
    directory = runs.folder / "noticed"
    nodes = start_nodes(runs, "notice", [directory, directory])
    runs.wait_for_step(nodes[0], 6)
    nodes[1].send_signal(signal.SIGUSR1)
    finish_nodes(nodes, STOPPED)
    check(saved_steps(directory)[-1] == max(runs.losses()) < NUM_STEPS, (saved_steps(directory), max(runs.losses())))


def start_nodes(runs, name, disks, plan=REPLICAS):
    """Two agents with a device each, of which each sees its own one of `disks` where checkpoints go."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    token = runs.folder / "token"
    if not token.exists():
        token.write_text("secret of this test\n")
        token.chmod(0o600)
    job, runs.results = runs.folder / f"job-{name}.yaml", runs.folder / f"run-{name}"
    # One path, which leads every process to the disk of its own node.
    directory = "/proc/self/cwd/disk"
    job.write_text(JOB.format(plan=plan, directory=directory, steps=NUM_STEPS, batch=8, every=EVERY))
    found = runs.plans.get((plan, "nodes"))
    known = ["--plan", found] if found else []
    runs.plans.setdefault((plan, "nodes"), runs.results / "plan-1.json")
    nodes = []
    for node, disk in enumerate(disks):
        disk.mkdir(exist_ok=True)
        home = runs.folder / f"home-{name}-{node}"
        home.mkdir()
        (home / "disk").symlink_to(disk)
        command = [runs.launch, "train", job, "--devices", "1xcpu", "--nnodes", 2, "--rdzv-endpoint", endpoint, "--token-file", token,
                   "--node-rank", node, "--run-dir", runs.results if node == 0 else home / "run", *known]
        nodes.append(subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home))
    return nodes


def finish_nodes(nodes, code=0):
    try:
        outputs = [node.communicate(timeout=TIME_LIMIT) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    check([node.returncode for node in nodes] == [code, code], outputs)


def check_other_plan(runs, whole, directory):
    """From a run's folder, under another plan, into the run's own folder."""
    shutil.rmtree(directory / f"step_{NUM_STEPS}")
    runs.train(PIPELINE, runs.folder / "moved", "--resume", directory)
    check_near(whole, runs.losses(), NUM_STEPS - EVERY + 1)


def check_export(runs, directory):
    """transformers reads what `launch export` writes: every parameter, as the shards have it, and it predicts the text that was trained on."""
    import torch
    import transformers
    from safetensors.torch import load_file

    saved = directory / f"step_{NUM_STEPS - EVERY}"
    out = runs.folder / "exported"
    # The run's own folder names the model; a checkpoint in a folder of its own does not.
    own = runs.folder / "run-of-export"
    shutil.copytree(saved, own / "checkpoints" / saved.name)
    shutil.copy(runs.folder / "run-1" / "job.yaml", own)
    done = subprocess.run([runs.launch, "export", own, "--out", out], capture_output=True, text=True)
    check(done.returncode == 0 and f"step {NUM_STEPS - EVERY}" in done.stdout, done)
    model, loading = transformers.GPT2LMHeadModel.from_pretrained(out, output_loading_info=True)
    check(not any(loading.values()), loading)
    weights = model.state_dict()
    shards = {}
    for file in saved.glob("*.safetensors"):
        shards |= load_file(file)
    values = {name.removeprefix("values/"): tensor for name, tensor in shards.items() if name.startswith("values/")}
    check(set(values) | {"lm_head.weight"} == set(weights), sorted(set(values) ^ set(weights)))
    for name, tensor in values.items():
        check(torch.equal(weights[name], tensor), name)
    text = torch.tensor([list((runs.folder / "text.txt").read_bytes()[:16])])
    trained, untrained = model.eval()(text, labels=text).loss, transformers.GPT2LMHeadModel(model.config).eval()(text, labels=text).loss
    check(trained < 0.8 * untrained, (trained, untrained))

    again = subprocess.run([runs.launch, "export", own, "--out", out], capture_output=True, text=True)
    check(again.returncode == 71 and "not empty" in again.stderr, again)
    plain = subprocess.run([runs.launch, "export", saved, "--format", "safetensors", "--out", runs.folder / "plain"], capture_output=True, text=True)
    check(plain.returncode == 0 and [file.name for file in (runs.folder / "plain").iterdir()] == ["model.safetensors"], plain)
    damaged = subprocess.run([runs.launch, "export", runs.folder / "killed" / "nowhere", "--out", runs.folder / "none"], capture_output=True, text=True)
    check(damaged.returncode == 65 and not (runs.folder / "none").exists(), damaged)


def check_refused(runs, directory):
    saved = directory / f"step_{NUM_STEPS - EVERY}"
    for flags, options, words in (
        (("--resume", runs.folder), {}, "no checkpoint there"),
        (("--resume", saved), {"steps": NUM_STEPS - EVERY}, "all steps are taken already"),
        (("--resume", "never"), {}, "later checkpoints of another run"),
    ):
        run = runs.start(REPLICAS, directory, *flags, **options)
        output = "".join(run.communicate(timeout=TIME_LIMIT))
        check(run.returncode in (1, 65, 71) and words in output, (run.returncode, output))
        check(not runs.results.exists(), "a run that never began left a folder")
    run = runs.start(REPLICAS, runs.folder / "other", "--resume", saved, batch=16)
    output = "".join(run.communicate(timeout=TIME_LIMIT))
    check(run.returncode == 65 and "another global batch" in output, (run.returncode, output))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--launch", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="coxswain-resume-"))
    try:
        runs = Runs(arguments.launch, folder)
        directory = folder / "whole"
        runs.train(REPLICAS, directory)
        whole = runs.losses()
        check(sorted(whole) == list(range(1, NUM_STEPS + 1)), sorted(whole))
        check(saved_steps(directory) == [NUM_STEPS - EVERY, NUM_STEPS], saved_steps(directory))
        check([event["step"] for event in runs.events("checkpoint_saved")] == list(range(EVERY, NUM_STEPS + 1, EVERY)),
              runs.events("checkpoint_saved"))
        check_stop(runs, whole)
        check_kill(runs, whole)
        check_restart(runs, whole)
        check_restart_without_replica(runs, whole)
        check_two_nodes(runs, whole)
        check_nodes_apart(runs, whole)
        check_new_disk(runs, whole)
        check_notice(runs)
        check_other_plan(runs, whole, directory)
        check_export(runs, directory)
        check_refused(runs, directory)
    except BaseException:
        print(f"kept for a look: {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
