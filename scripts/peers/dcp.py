"""torch.distributed.checkpoint: saves and loads a sharded state. One line of JSON."""

import argparse
import json
import os
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

LAYERS = 16
WIDTH = 1024


def work(rank, args, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(args.port),
                      RANK=str(rank), WORLD_SIZE=str(args.workers))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=args.workers)
    mesh = init_device_mesh("cpu", (args.workers,))
    rows = int(args.gib * 2**30 / 4 / LAYERS / WIDTH)
    state = {
        f"layer.{i}": distribute_tensor(torch.full((rows, WIDTH), float(i)), mesh, [Shard(0)])
        for i in range(LAYERS)
    }
    found = {"bytes": LAYERS * rows * WIDTH * 4}
    if args.stage == "save":
        for _ in range(2):
            dist.barrier()
            begun = time.perf_counter()
            future = dcp.async_save(state, checkpoint_id=args.store)
            found["stall"] = time.perf_counter() - begun
            future.result()
            dist.barrier()
            found["total"] = time.perf_counter() - begun
    else:
        dist.barrier()
        begun = time.perf_counter()
        dcp.load(state, checkpoint_id=args.store)
        dist.barrier()
        found["seconds"] = time.perf_counter() - begun
    if rank == 0:
        queue.put(found)
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", choices=["save", "load"], required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--port", type=int, default=29871)
    args = parser.parse_args()
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(work, args=(args, queue), nprocs=args.workers)
    print(json.dumps(queue.get()))
