"""One rank of PyTorch's Gloo, timed by bench/collectives: reads `BYTES ITERATIONS` lines, answers seconds per all-reduce."""

import argparse
import os
import sys
import time

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

import torch
import torch.distributed as distributed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--store", required=True, help="a file that the ranks meet at")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = distributed.FileStore(options.store, options.size)
    distributed.init_process_group("gloo", store=store, rank=options.rank, world_size=options.size)
    print("ready", torch.__version__, flush=True)
    buffers = {}
    for line in sys.stdin:
        num_bytes, iterations = (int(word) for word in line.split()[:2])
        if num_bytes not in buffers:
            buffers[num_bytes] = torch.zeros(num_bytes // 4)
        data = buffers[num_bytes]
        distributed.barrier()
        start = time.perf_counter()
        for _ in range(iterations):
            distributed.all_reduce(data)
        print((time.perf_counter() - start) / iterations, flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
