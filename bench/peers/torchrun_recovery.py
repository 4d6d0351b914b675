"""How soon a run under torchrun steps again after `kill -9` of one of its ranks, beside bench/chaos: DDP over Gloo on a
transformer of the same size, a checkpoint by rank 0 every so many steps, ranks killed at random instants. Prints one
line of JSON: the seconds of each kill, from the signal until every rank has taken the step that the killed one would
have taken next, and of their medians up to where a new attempt came: `started` (its last rank's first line of Python),
`imported` (torch), `connected` (process group), `loaded` (DDP, optimizer, checkpoint). `attempts`: how many torchrun
made after each; more than one where the ranks of an attempt failed to come together.

torchrun at its best for this: one node (no wait for late nodes), a look at processes every 0.1 s, one thread a rank,
restarts without end, every rank loads the newest checkpoint from a warm page cache.

In PyTorch 2.13 a restarted attempt shares one TCPStore with those before it and `env://` puts no prefix before its keys
(torch/distributed/rendezvous.py, `_create_c10d_store`: "We create a new TCPStore for every retry"; dynamic_rendezvous.py
makes it once and keeps it), so that Gloo reads addresses of dead processes. By default this script therefore joins
the store itself, under a prefix by TORCHELASTIC_RESTART_COUNT. `--store fresh` sets TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
instead: rank 0 of each attempt serves a new store. `--store shared` is `env://` as it comes, which fails.

    torchrun_recovery.py --kills 10 --ranks 4 --seed 1
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

STARTED = time.monotonic()
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SAVE_EVERY = 10
LIMIT_SECONDS = 120
MARKS = ("started", "imported", "connected", "loaded")


def join(store_kind):
    """The process group, and this rank."""
    import datetime

    import torch.distributed as dist

    if store_kind == "attempt":
        environment = os.environ
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        store = dist.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), size, is_master=False,
                              timeout=datetime.timedelta(seconds=60))
        attempt = dist.PrefixStore("attempt_" + environment["TORCHELASTIC_RESTART_COUNT"], store)
        dist.init_process_group("gloo", store=attempt, rank=rank, world_size=size)
    else:
        dist.init_process_group("gloo")
    return dist.get_rank()


def train(folder, store_kind):
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    marks = [STARTED, time.monotonic()]
    torch.set_num_threads(1)
    rank = join(store_kind)
    marks.append(time.monotonic())
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, norm_first=True)
    model = DistributedDataParallel(
        nn.Sequential(nn.Embedding(256, 64), nn.TransformerEncoder(layer, 4, enable_nested_tensor=False),
                      nn.Linear(64, 256)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    saved = os.path.join(folder, "checkpoint.pt")
    step = 0
    if os.path.exists(saved):
        state = torch.load(saved)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    marks.append(time.monotonic())
    with open(os.path.join(folder, f"rank.{rank}.new"), "w") as out:
        json.dump({"pid": os.getpid(), "marks": marks, "attempt": int(os.environ["TORCHELASTIC_RESTART_COUNT"])}, out)
    os.replace(out.name, os.path.join(folder, f"rank.{rank}"))
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


class Run:
    def __init__(self, folder, ranks, store_kind):
        self.folder, self.ranks = folder, ranks
        environment = dict(os.environ, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1" if store_kind == "fresh" else "0")
        self.errors = open(os.path.join(folder, "errors"), "w+")
        self.launcher = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
             "--max-restarts=1000000", "--monitor-interval=0.1", os.path.abspath(__file__), "--train", folder,
             "--store", store_kind],
            stdout=subprocess.DEVNULL, stderr=self.errors, env=environment)

    def last_steps(self):
        """The largest step that each rank has taken; 0 before its first."""
        largest = []
        for rank in range(self.ranks):
            try:
                with open(os.path.join(self.folder, f"steps.{rank}")) as lines:
                    steps = [int(line) for line in lines if line.endswith("\n")]
            except FileNotFoundError:
                steps = []
            largest.append(max(steps, default=0))
        return largest

    def newest(self, rank):
        """Pid, marks and attempt of a rank's process that was loaded last."""
        with open(os.path.join(self.folder, f"rank.{rank}")) as text:
            return json.load(text)

    def wait_for(self, condition):
        begin = time.monotonic()
        while not condition():
            if self.launcher.poll() is not None:
                self.fail(f"torchrun ended with {self.launcher.returncode}")
            if time.monotonic() - begin > LIMIT_SECONDS:
                self.fail(f"torchrun did not go on within {LIMIT_SECONDS} s")
            time.sleep(0.01)

    def fail(self, what):
        self.errors.seek(0)
        sys.exit(f"{what}\n{self.errors.read()[-4000:]}")

    def kill(self, rank):
        """`kill -9`; seconds until every rank is past the killed one's next step, the marks before that, and how many
        attempts torchrun made of it."""
        killed = self.newest(rank)
        pid = killed["pid"]
        struck = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: not lives(pid))
        taken = self.last_steps()[rank]
        self.wait_for(lambda: min(self.last_steps()) > taken)
        seconds = time.monotonic() - struck
        marks = [self.newest(each)["marks"] for each in range(self.ranks)]
        return seconds, [max(times) - struck for times in zip(*marks)], self.newest(rank)["attempt"] - killed["attempt"]

    def end(self):
        self.launcher.terminate()
        try:
            self.launcher.wait(40)
        except subprocess.TimeoutExpired:
            self.launcher.kill()
            self.launcher.wait()


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as text:
            return text.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("attempt", "fresh", "shared"), default="attempt")
    parser.add_argument("--train", metavar="FOLDER")
    options = parser.parse_args()
    if options.train:
        train(options.train, options.store)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # torchrun and its ranks end too
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="torchrun-recovery-") as folder:
        run = Run(folder, options.ranks, options.store)
        seconds, marks, attempts = [], [], []
        try:
            run.wait_for(lambda: min(run.last_steps()) >= 5)
            for _ in range(options.kills):
                time.sleep(rng.expovariate(1 / 1.5))
                one, parts, needed = run.kill(rng.randrange(options.ranks))
                seconds.append(one)
                marks.append(parts)
                attempts.append(needed)
        finally:
            run.end()
    from torch.version import __version__
    middle = [statistics.median(times) for times in zip(*marks)]
    print(json.dumps({"version": __version__, "seconds": seconds, "attempts": attempts,
                      "median_until": dict(zip(MARKS, middle))}))


if __name__ == "__main__":
    main()
