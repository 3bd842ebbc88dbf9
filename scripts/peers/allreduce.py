"""gloo's all-reduce between two processes on this machine: the peer of `bench_allreduce`.

Prints one line of JSON: {"ms": median, "bytes": ..}.
"""

import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as processes


def work(rank, args, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    values = torch.ones(args.bytes // 4)
    repeats = max(8, min(400, 2**28 // args.bytes))
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        dist.all_reduce(values)
        taken.append(time.perf_counter() - begun)
        values.fill_(1.0)
    if rank == 0:
        results.put(1e3 * statistics.median(taken[2:]))
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=2**26)
    args = parser.parse_args()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29_000 + os.getpid() % 1_000))
    results = processes.get_context("spawn").SimpleQueue()
    processes.spawn(work, args=(args, results), nprocs=2)
    print(json.dumps({"ms": results.get(), "bytes": args.bytes}))


if __name__ == "__main__":
    main()
