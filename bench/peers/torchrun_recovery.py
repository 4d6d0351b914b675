"""How soon a run under torchrun steps again after `kill -9` of one of its ranks, beside bench/chaos: DDP over Gloo on a
small transformer, a checkpoint by rank 0 every so many steps, ranks killed at random instants. Prints one line of JSON:
the seconds of each kill, from the signal until every rank has taken a step that none had taken before.
Not trusted yet: here restarted ranks of PyTorch 2.13 mostly did not find each other (Gloo connects to an address of the
attempt before), and the run did not come back within 120 s.

    torchrun_recovery.py --kills 10 --ranks 4 --seed 1
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
sys.dont_write_bytecode = True

SAVE_EVERY = 10
LIMIT_SECONDS = 120


def train(folder):
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, norm_first=True)
    model = DistributedDataParallel(nn.Sequential(nn.Embedding(256, 64), nn.TransformerEncoder(layer, 4), nn.Linear(64, 256)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    saved = os.path.join(folder, "checkpoint.pt")
    step = 0
    if os.path.exists(saved):
        state = torch.load(saved)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    with open(os.path.join(folder, f"pid.{rank}"), "w") as out:
        out.write(str(os.getpid()))
    log = open(os.path.join(folder, f"steps.{rank}"), "a", buffering=1)
    while True:
        step += 1
        tokens = torch.randint(256, (2, 65))
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0 and step % SAVE_EVERY == 0:
            torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, saved + ".new")
            os.replace(saved + ".new", saved)
        log.write(f"{step}\n")


def last_steps(folder, ranks):
    """The largest step that each rank has taken; 0 before its first."""
    largest = []
    for rank in range(ranks):
        try:
            with open(os.path.join(folder, f"steps.{rank}")) as lines:
                steps = [int(line) for line in lines if line.endswith("\n")]
        except FileNotFoundError:
            steps = []
        largest.append(max(steps, default=0))
    return largest


def wait_for(condition):
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > LIMIT_SECONDS:
            sys.exit(f"torchrun did not go on within {LIMIT_SECONDS} s")
        time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", metavar="FOLDER")
    options = parser.parse_args()
    if options.train:
        train(options.train)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="torchrun-recovery-") as folder:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.ranks}",
             "--max-restarts=1000", os.path.abspath(__file__), "--train", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = []
        try:
            wait_for(lambda: min(last_steps(folder, options.ranks)) >= 5)
            for _ in range(options.kills):
                time.sleep(rng.expovariate(1 / 1.5))
                before = max(last_steps(folder, options.ranks))
                with open(os.path.join(folder, f"pid.{rng.randrange(options.ranks)}")) as pid:
                    os.kill(int(pid.read()), signal.SIGKILL)
                struck = time.monotonic()
                wait_for(lambda: min(last_steps(folder, options.ranks)) > before + 1)
                seconds.append(time.monotonic() - struck)
        finally:
            launcher.terminate()
            try:
                launcher.wait(20)
            except subprocess.TimeoutExpired:
                launcher.kill()
                launcher.wait()
    import torch
    print(json.dumps({"version": torch.__version__, "seconds": seconds}))


if __name__ == "__main__":
    main()
