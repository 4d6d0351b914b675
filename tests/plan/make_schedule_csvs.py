#!/usr/bin/env python3
"""Writes schedules as PyTorch's pipelining dumps them: `python make_schedule_csvs.py FOLDER` -> FOLDER/NAME.csv.

Each class's own functions from numbers to lists and its own _dump_csv; no process group and no module is made.
"""

import pathlib
import sys
import types

from torch.distributed.pipelining import schedules
from torch.distributed.pipelining._utils import generate_stage_to_rank_mapping

# name: class, ranks, stages a rank, micro-batches, form of the file
CASES = {
    "gpipe": ("ScheduleGPipe", 3, 1, 4, None),
    "1f1b": ("ScheduleInterleaved1F1B", 3, 1, 6, "compute_only"),
    # PyTorch 2.13 begins the last line with micro-batch 1.
    "1f1b_broken": ("Schedule1F1B", 3, 1, 4, None),
    "interleaved": ("ScheduleInterleaved1F1B", 2, 2, 4, "compute_only"),
    "looped_bfs": ("ScheduleLoopedBFS", 2, 2, 4, "compute_only"),
    "interleaved_zero_bubble": ("ScheduleInterleavedZeroBubble", 2, 2, 4, "compute_only"),
    "zbv": ("ScheduleZBVZeroBubble", 2, 2, 4, "compute_only"),
    "dual_pipe_v": ("ScheduleDualPipeV", 2, 2, 4, "compute_only"),
    "dual_pipe_v_long": ("ScheduleDualPipeV", 2, 2, 8, "compute_only"),
    "looped_bfs_comms": ("ScheduleLoopedBFS", 2, 2, 4, "compute_comms"),
    "interleaved_one_rank": ("ScheduleInterleaved1F1B", 1, 3, 2, "compute_only"),
}


def make(kind, ranks, chunks, count):
    one = object.__new__(getattr(schedules, kind))
    one.pp_group_size, one.n_local_stages, one._n_microbatches = ranks, chunks, count
    one._num_stages = one.num_stages = ranks * chunks
    one._stages = [types.SimpleNamespace() for _ in range(chunks)]  # only counted and told where stages are
    one.rank = 0
    one._defer_pp_recv = False
    one.number_of_rounds = max(1, count // ranks)
    one.microbatches_per_round = count // one.number_of_rounds
    if kind in ("ScheduleGPipe", "Schedule1F1B"):
        one.pipeline_order = one._get_pipeline_order()
        return one
    one.pipeline_order = {rank: one._calculate_single_rank_operations(rank) for rank in range(ranks)}
    if kind == "ScheduleInterleavedZeroBubble":
        one.pipeline_order = one._add_bubbles_to_actions(ranks * chunks)
    style = "v" if kind in ("ScheduleZBVZeroBubble", "ScheduleDualPipeV") else "loop"
    one.stage_index_to_group_rank = generate_stage_to_rank_mapping(ranks, ranks * chunks, style=style)
    one._prepare_schedule_with_comms(one.pipeline_order)
    return one


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, ranks, chunks, count, form) in CASES.items():
        schedule = make(kind, ranks, chunks, count)
        file = str(folder / f"{name}.csv")
        if form is None:  # classes of one stage a rank have an order but no dump of their own
            schedules.PipelineScheduleMulti._dump_csv(schedule, file)
        else:
            schedule._dump_csv(file, format=form)


if __name__ == "__main__":
    main()
