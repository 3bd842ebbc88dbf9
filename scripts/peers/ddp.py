"""PyTorch's DistributedDataParallel over gloo on this machine: the peer of `bench_step --workers`.

Each process has one thread and a batch of its own. Prints the line of JSON that step.py prints.
"""

import json
import os

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from step import RewardModel, arguments, shape, train


def work(rank, args, results):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = RewardModel(args, shape(args)[1])
    if args.workers > 1:
        dist.init_process_group("gloo", rank=rank, world_size=args.workers)
        model = torch.nn.parallel.DistributedDataParallel(model)
    result = train(args, model, share=args.workers)
    if rank == 0:
        results.put(result)


def main():
    parser = arguments()
    parser.add_argument("--workers", type=int, default=2)
    parser.set_defaults(batch=4)
    args = parser.parse_args()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29_000 + os.getpid() % 1_000))
    results = processes.get_context("spawn").SimpleQueue()
    processes.spawn(work, args=(args, results), nprocs=args.workers)
    print(json.dumps(results.get()))


if __name__ == "__main__":
    main()
