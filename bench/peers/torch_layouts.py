"""One rank of PyTorch's own distributed training of the example GPT, for bench/runtime: data parallel (DDP), fully
sharded (FSDP2), pipeline (torch.distributed.pipelining, 1F1B), tensor and sequence parallel (DTensor).

    RANK=0 WORLD_SIZE=2 torch_layouts.py ddp MODEL.pt2 TEXT --store FILE --steps 12 --micro 8 --count 4

Same weights (out of the archive), windows, learning rates, micro-batches, clipping and AdamW as ours. Each rank prints
one JSON object a step (its own part of the loss, seconds) and one at the end. Every layout is set up the way that its
documentation recommends, in the variant that takes least time and memory here; what was chosen is said where it is.
The ranks meet at a file and talk through Gloo over loopback.
"""

import argparse
import ctypes
import json
import os
import sys
import time

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
sys.dont_write_bytecode = True

import torch
import torch.distributed as distributed
from torch import nn
from torch.nn import functional

from eager_gpt import Windows, learning_rate, load_model


class Layout:
    """What the layouts share: a module on this rank, its optimizer, a step of `count` micro-batches."""

    def __init__(self, options, module):
        self.options = options
        self.module = module
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def make_optimizer(self):
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=self.options.learning_rate, betas=(0.9, 0.95),
                                           eps=1e-8, weight_decay=0.1, fused=True)

    def micro_batch(self, tokens, targets, m):
        first = m * self.options.micro
        return tokens[first:first + self.options.micro], targets[first:first + self.options.micro]

    def zero(self):
        self.optimizer.zero_grad(set_to_none=True)

    def clip(self):
        return float(nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip))

    def step(self, tokens, targets):
        """Returns this rank's share of the step's loss (shares add up to it) and the norm before clipping."""
        self.zero()
        loss = self.accumulate(tokens, targets)
        norm = self.clip()
        self.optimizer.step()
        return loss, norm


class DataParallel(Layout):
    """DDP, gradients accumulated without communication but in the last micro-batch, when they are reduced in buckets
    beside backward. Gradients are views of the buckets and are zeroed in place: cleared, they would be allocated anew
    beside the buckets, which takes the parameters' bytes once more."""

    def __init__(self, options, module):
        super().__init__(options, module)
        self.parallel = nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)
        self.make_optimizer()

    def zero(self):
        self.optimizer.zero_grad(set_to_none=False)

    def accumulate(self, tokens, targets):
        total, count = 0.0, self.options.count
        share = self.options.micro // self.size
        for m in range(count):
            x, y = (part[self.rank * share:(self.rank + 1) * share] for part in self.micro_batch(tokens, targets, m))
            self.parallel.require_backward_grad_sync = m == count - 1  # what no_sync() sets
            loss = self.parallel(x, y) / count
            loss.backward()
            total += float(loss.detach()) / self.size
        return total


class FullySharded(Layout):
    """FSDP2: every block and the rest of the model a group of its own, resharded after forward. `--accumulate whole`
    keeps whole gradients until the last micro-batch, `sharded` reduces and scatters those of every micro-batch (PyTorch's
    default)."""

    def __init__(self, options, module):
        super().__init__(options, module)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (self.size,))
        for block in module.blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(module, mesh=mesh)
        self.make_optimizer()

    def accumulate(self, tokens, targets):
        total, count = 0.0, self.options.count
        share = self.options.micro // self.size
        for m in range(count):
            x, y = (part[self.rank * share:(self.rank + 1) * share] for part in self.micro_batch(tokens, targets, m))
            if self.options.accumulate == "whole":
                self.module.set_requires_gradient_sync(m == count - 1)
            self.module.set_is_last_backward(m == count - 1)
            loss = self.module(x, y) / count
            loss.backward()
            total += float(loss.detach()) / self.size
        return total

    def clip(self):
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        return float(norm.full_tensor())


class FirstStage(nn.Module):
    def __init__(self, module, cut):
        super().__init__()
        self.token_embedding, self.position_embedding = module.token_embedding, module.position_embedding
        self.blocks = module.blocks[:cut]

    def forward(self, tokens):
        x = self.token_embedding(tokens) + self.position_embedding(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return x


class LastStage(nn.Module):
    def __init__(self, module, cut):
        super().__init__()
        self.blocks, self.norm = module.blocks[cut:], module.norm
        self.head = nn.Linear(*reversed(module.head.weight.shape), bias=False)
        self.head.weight = nn.Parameter(module.head.weight.detach().clone())

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Pipeline(Layout):
    """Two stages under Schedule1F1B. PyTorch's pipelining knows no tied weights: both stages hold the embedding, and
    its gradients are added up once a step, as ours are."""

    def __init__(self, options, module):
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        super().__init__(options, (FirstStage if distributed.get_rank() == 0 else LastStage)(module, options.cut))
        stage = PipelineStage(self.module, self.rank, self.size, torch.device("cpu"))
        self.schedule = Schedule1F1B(stage, options.count, loss_fn=self.loss)
        self.tied = self.module.token_embedding.weight if self.rank == 0 else self.module.head.weight
        self.make_optimizer()

    @staticmethod
    def loss(logits, targets):
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def accumulate(self, tokens, targets):
        if self.rank == 0:
            self.schedule.step(tokens)
            return 0.0
        losses = []
        self.schedule.step(target=targets, losses=losses)
        return float(torch.stack(losses).detach().mean())

    def clip(self):
        distributed.all_reduce(self.tied.grad)
        # The first stage counts the tied gradient.
        counted = [p.grad for p in self.module.parameters() if self.rank == 0 or p is not self.tied]
        square = nn.utils.get_total_norm(counted) ** 2
        distributed.all_reduce(square)
        norm = square.sqrt()
        nn.utils.clip_grads_with_norm_(self.module.parameters(), self.options.clip, norm)
        return float(norm)


class ShardedAttention(nn.Module):
    """The example's attention over the heads of one rank."""

    def __init__(self, whole, size):
        super().__init__()
        self.heads, self.head_size = whole.heads // size, whole.projection_out.in_features // whole.heads
        self.projection_in, self.projection_out = whole.projection_in, whole.projection_out
        # Rows go from (query key value, heads) to (ranks, query key value, heads of the rank): a contiguous shard then
        # holds whole heads.
        rows = self.projection_in.weight.detach().view(3, size, -1, self.projection_in.in_features)
        self.projection_in.weight = nn.Parameter(rows.transpose(0, 1).reshape(-1, self.projection_in.in_features))

    def forward(self, x):
        batch, length, _ = x.shape
        qkv = self.projection_in(x).view(batch, length, 3, self.heads, self.head_size)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.projection_out(mixed.transpose(1, 2).reshape(batch, length, -1))


class TensorParallel(Layout):
    """DTensor: column- and row-wise projections, activations between them sharded over the sequence, the embedding and
    the loss over the vocabulary."""

    def __init__(self, options, module):
        super().__init__(options, module)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Replicate, Shard
        from torch.distributed.tensor.parallel import (ColwiseParallel, PrepareModuleInput, RowwiseParallel,
                                                       SequenceParallel, loss_parallel, parallelize_module)

        mesh = init_device_mesh("cpu", (self.size,))
        self.loss_parallel = loss_parallel
        gather = dict(input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),))
        for block in module.blocks:
            block.attention = ShardedAttention(block.attention, self.size)
            parallelize_module(block, mesh, {
                "norm_attention": SequenceParallel(), "norm_mlp": SequenceParallel(),
                "attention": PrepareModuleInput(**gather), "mlp": PrepareModuleInput(**gather),
                "attention.projection_in": ColwiseParallel(), "mlp.projection_in": ColwiseParallel(),
                "attention.projection_out": RowwiseParallel(output_layouts=Shard(1)),
                "mlp.projection_out": RowwiseParallel(output_layouts=Shard(1)),
            })
        parallelize_module(module, mesh, {
            "token_embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
            "position_embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0)),
            "norm": SequenceParallel(),
            "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
        })
        module.head.weight = module.token_embedding.weight
        self.make_optimizer()

    def accumulate(self, tokens, targets):
        total, count = 0.0, self.options.count
        for m in range(count):
            x, y = self.micro_batch(tokens, targets, m)
            with self.loss_parallel():
                loss = self.module(x, y) / count
                loss.backward()
            total += float(loss.detach().full_tensor()) / self.size
        return total

    def clip(self):
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        return float(norm.full_tensor())


class Memory:
    """Bytes of tensors, by the allocator that our worker uses, built as a library (`--allocator`). Without it PyTorch's
    own allocator is left in place, which cannot tell."""

    def __init__(self, library):
        self.library = ctypes.CDLL(library) if library else None
        if self.library:
            self.library.cox_peak.restype = ctypes.c_int64
            self.library.cox_install()

    def reset(self):
        if self.library:
            self.library.cox_reset_peak()

    def peak(self):
        return self.library.cox_peak() if self.library else 0


def resident_peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


LAYOUTS = {"ddp": DataParallel, "fsdp": FullySharded, "pipeline": Pipeline, "tensor": TensorParallel}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--store", required=True, help="a file that the ranks meet at")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--micro", type=int, default=8, help="samples of a micro-batch over all replicas")
    parser.add_argument("--count", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--cut", type=int, default=2, help="blocks of the first stage")
    parser.add_argument("--accumulate", choices=["whole", "sharded"], default="sharded")
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-seed", type=int, default=7)
    parser.add_argument("--fraction", type=float, default=0.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--min-ratio", type=float, default=0.1)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--allocator", default="", help="library of our caching allocator: measures memory")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    memory = Memory(options.allocator)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", store=distributed.FileStore(options.store, size), rank=rank, world_size=size)
    layout = LAYOUTS[options.layout](options, load_model(options.model, options.heads, 0.0))
    windows = Windows(options.text, options.sequence, options.data_seed, options.fraction)
    batch = options.micro * options.count
    distributed.barrier()
    for step in range(1, options.steps + 1):
        start = time.perf_counter()
        rate = learning_rate(step, options.learning_rate, options.warmup, options.steps, options.min_ratio)
        for group in layout.optimizer.param_groups:
            group["lr"] = rate
        loss, norm = layout.step(*windows.training(step, batch))
        print(json.dumps({"step": step, "loss": loss, "grad_norm": norm, "seconds": time.perf_counter() - start}),
              flush=True)
        if step == 1:
            memory.reset()  # the first step makes buckets and moments; what counts is what the others need
    distributed.barrier()
    print(json.dumps({"torch": torch.__version__, "peak_memory_bytes": memory.peak(),
                      "resident_bytes": resident_peak()}), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
