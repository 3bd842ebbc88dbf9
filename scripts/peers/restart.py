"""torchrun restarting a gloo job of two processes after the SIGKILL of one: the peer of `bench recovery`.

Each process trains the model of step.py with DistributedDataParallel and goes on from the checkpoint that rank 0
saves after every tenth step. Prints one line of JSON: seconds from the kill until both processes of the next
incarnation have done a step ("whole").
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def work(folder):
    import torch
    import torch.distributed as dist

    from step import RewardModel, arguments

    args = arguments().parse_args([])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = RewardModel(args, args.seq)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    saved, first = folder / "checkpoint.pt", 0
    if saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    model = torch.nn.parallel.DistributedDataParallel(model)
    ids = torch.randint(0, args.vocab, (4, args.seq))
    incarnation = os.environ["TORCHELASTIC_RESTART_COUNT"]
    with open(folder / f"steps-{rank}", "a") as steps:
        for step in range(first + 1, 100_000):
            chosen, rejected = model(ids).chunk(2)
            loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(incarnation, os.getpid(), step, time.monotonic(), file=steps, flush=True)
            if rank == 0 and step % 10 == 0:
                whole = dict(model=model.module.state_dict(), optimizer=optimizer.state_dict(), step=step)
                torch.save(whole, folder / "next.pt")
                os.replace(folder / "next.pt", saved)


def done(folder, incarnation):
    """The first steps of both processes of an incarnation that have come so far, each as (pid, steps, time)."""
    found = []
    for rank in (0, 1):
        path = folder / f"steps-{rank}"
        lines = path.read_text().splitlines() if path.exists() else []
        lines = [line.split() for line in lines if line.startswith(f"{incarnation} ") and line.count(" ") == 3]
        if lines:
            found.append((int(lines[0][1]), len(lines), float(lines[0][3])))
    return found


def wait(job, condition):
    until = time.monotonic() + 300
    while not condition():
        if job.poll() is not None or time.monotonic() > until:
            sys.exit("the peer's job doesn't train")
        time.sleep(0.005)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="set by the program itself for its processes")
    args = parser.parse_args()
    if args.work:
        return work(args.work)
    with tempfile.TemporaryDirectory(prefix="polestar-bench-") as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                   "--max-restarts", "1", __file__, "--work", folder]
        folder = Path(folder)
        job = subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            wait(job, lambda: [steps for _, steps, _ in done(folder, 0) if steps >= 20][1:])
            victim = done(folder, 0)[1][0]
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait(job, lambda: done(folder, 1)[1:])
            print(json.dumps(dict(whole=max(at for _, _, at in done(folder, 1)) - killed)))
        finally:
            job.terminate()
            job.wait()


if __name__ == "__main__":
    main()
