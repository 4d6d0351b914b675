"""How soon a run under torchrun goes on after the loss of one of its two nodes, beside bench/chaos: `--nnodes 1:2`, two ranks a node, the
training of torchrun_recovery.py. Each round starts both agents on this machine (loopback), lets the ranks step, ends the second agent with
its ranks by SIGKILL, and times until both ranks of the first have taken the step that they would have taken next, among two ranks instead
of four. Prints one line of JSON.

torchrun at its best for this, but for its own limits, which are at their defaults: the first agent serves the store, a look at processes
every 0.1 s, restarts without end.

    torchrun_elastic.py --rounds 3 --seed 1
"""
import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import torchrun_recovery

RANKS_A_NODE = 2
WARM_STEPS = 5


class Nodes(torchrun_recovery.Run):
    """Both agents; the first one is what Run calls the launcher."""

    def __init__(self, folder):
        self.folder, self.ranks = folder, 2 * RANKS_A_NODE
        self.errors = open(os.path.join(folder, "errors"), "w+")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.agents = [self.start(node, port) for node in range(2)]
        self.launcher = self.agents[0]

    def start(self, node, port):
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", f"--nproc-per-node={RANKS_A_NODE}", "--rdzv-backend=c10d",
             f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=lost", f"--rdzv-conf=is_host={1 - node}", "--local-addr=127.0.0.1",
             "--max-restarts=1000000", "--monitor-interval=0.1", os.path.abspath(torchrun_recovery.__file__), "--train", self.folder,
             "--store", "attempt"],
            stdout=subprocess.DEVNULL, stderr=self.errors, start_new_session=True)

    def ranks_of(self, node):
        """Pids of the ranks whose parent is that agent."""
        pids = []
        for rank in range(self.ranks):
            pid = self.newest(rank)["pid"]
            with open(f"/proc/{pid}/stat") as text:
                if int(text.read().rpartition(")")[2].split()[1]) == self.agents[node].pid:
                    pids.append(pid)
        return pids

    def lose_node(self):
        """Seconds until the ranks that are left are past the step that was taken last."""
        lost = self.ranks_of(1)
        if len(lost) != RANKS_A_NODE:
            self.fail(f"the second agent has {len(lost)} ranks")
        struck = time.monotonic()
        for pid in (self.agents[1].pid, *lost):
            os.kill(pid, signal.SIGKILL)
        self.agents[1].wait()
        taken = max(self.last_steps())
        old = {rank: self.newest(rank)["pid"] for rank in range(RANKS_A_NODE)}
        self.wait_for(lambda: all(self.newest(rank)["pid"] != pid for rank, pid in old.items())
                      and min(self.last_steps()[:RANKS_A_NODE]) > taken)
        return time.monotonic() - struck

    def end(self):
        for agent in self.agents:
            if agent.poll() is None:
                agent.terminate()
        for agent in self.agents:
            try:
                agent.wait(40)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # torchrun and its ranks end too
    rng = random.Random(options.seed)
    seconds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="torchrun-elastic-") as folder:
            nodes = Nodes(folder)
            try:
                nodes.wait_for(lambda: min(nodes.last_steps()) >= WARM_STEPS)
                time.sleep(rng.expovariate(1 / 1.5))
                seconds.append(nodes.lose_node())
            finally:
                nodes.end()
    from torch.version import __version__
    print(json.dumps({"version": __version__, "seconds": seconds}))


if __name__ == "__main__":
    main()
