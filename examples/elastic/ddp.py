"""A small model trained with DistributedDataParallel; the script knows nothing of LlamaForge.

torchrun --nproc-per-node 2 ddp.py --steps 20
llamaforge run --nodes 2 -- ddp.py --steps 20
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    """Meets the others, trains, and leaves the weights as a result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, local_rank = dist.get_rank(), int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    torch.manual_seed(0)
    rows = torch.randn(512, 16)
    data = TensorDataset(rows, rows.sum(dim=1, keepdim=True))
    sampler = DistributedSampler(data)
    batches = DataLoader(data, batch_size=options.batch_size, sampler=sampler)
    model = DistributedDataParallel(nn.Linear(16, 1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    step = epoch = 0
    while step < options.steps:
        sampler.set_epoch(epoch)
        for inputs, wanted in batches:
            loss = nn.functional.mse_loss(model(inputs.to(device)), wanted.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if rank == 0 and step % 10 == 0:
                print(f"step {step}: loss {loss.item():.4f}")
            if step == options.steps:
                break
        epoch += 1
    if rank == 0:
        folder = os.environ.get("LLAMAFORGE_OUTPUT", ".")
        torch.save(model.module.state_dict(), f"{folder}/model.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
