"""A script that survives a rank's failure: it saves a snapshot and goes on from it.

    torchrun --nproc-per-node 2 --max-restarts 3 elastic.py snapshot.pt --fail-at 7
    llamaforge run --max-restarts 3 -- elastic.py /shared/snapshot.pt --fail-at 7

The snapshot must stand where every node finds it: on a path that all share.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Takes up a snapshot; returns the steps that it has done."""
    if not path.exists():
        return 0
    snapshot = torch.load(path, weights_only=True)
    model.load_state_dict(snapshot["model"])
    optimizer.load_state_dict(snapshot["optimizer"])
    return int(snapshot["step"])


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes a snapshot: readers see the old one or the whole new one."""
    aside = path.with_suffix(".new")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, aside)
    aside.replace(path)


@record
def main() -> None:
    """Trains; the first attempt fails where it is asked to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--fail-at", type=int, default=0, help="step at which the last rank fails")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, attempt = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    torch.manual_seed(0)
    inner = nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(inner.parameters())
    first = load(options.snapshot, inner, optimizer)
    model = DistributedDataParallel(inner)
    print(f"attempt {attempt} of rank {rank} begins after step {first}")
    for step in range(first + 1, options.steps + 1):
        if step == options.fail_at and attempt == 0 and rank == dist.get_world_size() - 1:
            sys.exit("this rank fails, as it was asked to")
        loss = model(torch.randn(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            save(options.snapshot, inner, optimizer, step)
    if rank == 0:
        print(f"done: step {options.steps}")
    dist.barrier()  # rank 0 hosts the store: it leaves last
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
