#!/usr/bin/env python3
"""Writes tests/plan/pytorch_schedules.h: orders that PyTorch gives for schedules with several chunks a stage.

    .venv/bin/python tests/plan/make_schedule_expectations.py > tests/plan/pytorch_schedules.h

Only its pure function from numbers to lists is asked; no process group and no module is made.
"""

import torch
from torch.distributed.pipelining import schedules

CASES = [("interleaved", 2, 2, 4), ("interleaved", 3, 2, 6), ("interleaved", 2, 3, 2), ("interleaved", 4, 2, 10),
         ("interleaved", 3, 2, 2), ("zbv", 2, 2, 4), ("zbv", 3, 2, 5), ("zbv", 4, 2, 9), ("zbv", 3, 2, 2)]


def order(kind, stages, chunks, count, rank):
    """One rank's list as a line of the schedule's CSV, without idle cells."""
    one = object.__new__(schedules.ScheduleInterleaved1F1B if kind == "interleaved" else schedules.ScheduleZBVZeroBubble)
    one.pp_group_size = stages
    one.n_local_stages = chunks
    one._n_microbatches = count
    one._num_stages = one.num_stages = stages * chunks
    one.rank = rank
    one.number_of_rounds = max(1, count // stages)
    one.microbatches_per_round = count // one.number_of_rounds
    actions = one._calculate_single_rank_operations(rank)
    return ",".join(str(action) for action in actions if action is not None)


def main():
    print("#pragma once")
    print(f"// Written by make_schedule_expectations.py with torch {torch.__version__.split('+')[0]}; not by hand.")
    print("namespace coxswain::plan {\n")
    print("struct PytorchSchedule {\n  const char* kind;\n  int num_stages, num_chunks, num_micro_batches;")
    print("  const char* csv;\n};\n")
    print("inline constexpr PytorchSchedule kPytorchSchedules[] = {")
    for kind, stages, chunks, count in CASES:
        print(f'    {{"{kind}", {stages}, {chunks}, {count},')
        for rank in range(stages):
            line = order(kind, stages, chunks, count, rank) + "\\n"
            while len(line) > 100:
                cut = line.rfind(",", 0, 100) + 1
                print(f'     "{line[:cut]}"')
                line = line[cut:]
            print(f'     "{line}"' + ("}," if rank == stages - 1 else ""))
    print("};\n\n}  // namespace coxswain::plan")


if __name__ == "__main__":
    main()
