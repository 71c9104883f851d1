"""The ranks of one generation, joined by a plain c10d process group over Gloo.

Not `torch.distributed.init_process_group`: a generation is an object with a store and a prefix of
its own, so that the next one can be formed in the same process without global state. All
reductions are out of place: a peer that dies in the middle leaves the local inputs whole.
"""

from __future__ import annotations

import re
from datetime import timedelta

import torch
from torch.distributed import (
    AllreduceOptions,
    BroadcastOptions,
    ProcessGroupGloo,
    ReduceOp,
    Store,
)

from llamaforge.errors import LlamaForgeError
from llamaforge.spec.fleet import NETWORK_TIMEOUT
from llamaforge.train import beat


class GroupBroken(LlamaForgeError):
    """A peer left while others waited for it; the generation is over."""


class Group:
    """The ranks of one generation. A group of one rank needs no sockets.

    Use `Group.form` (several ranks) or `Group.alone`.
    """

    def __init__(self, rank: int, world_size: int, backend: ProcessGroupGloo | None) -> None:
        self.rank = rank
        self.world_size = world_size
        self._backend = backend

    @classmethod
    def alone(cls) -> Group:
        """A group of this process only."""
        return cls(0, 1, None)

    @classmethod
    def form(
        cls,
        store: Store,
        *,
        rank: int,
        world_size: int,
        address: str,
        timeout: timedelta = timedelta(seconds=NETWORK_TIMEOUT),
    ) -> Group:
        """Meets the other ranks.

        Args:
            store: the generation's store, with a prefix of its own.
            rank: this process.
            world_size: all of them.
            address: IP address of this node that the others reach; Gloo binds to it, so neither
                the host's name nor the order of its interfaces matters.
            timeout: for this and every later collective.

        Raises:
            GroupBroken: not all ranks came in time.
        """
        if world_size == 1:
            return cls.alone()
        options = ProcessGroupGloo._Options()
        options._devices = [ProcessGroupGloo.create_device(hostname=address)]
        options._timeout = timeout
        try:
            return cls(rank, world_size, ProcessGroupGloo(store, rank, world_size, options))
        except RuntimeError as error:
            raise GroupBroken(f"rank {rank} could not meet the other ranks: {error}") from error

    def gather(self, vector: torch.Tensor) -> torch.Tensor:
        """Everybody's vector.

        Args:
            vector: int64 `[n]`, the same n on every rank.

        Returns:
            int64 `[world_size, n]`.
        """
        if self._backend is None:
            return vector.unsqueeze(0).clone()
        out = [torch.empty_like(vector) for _ in range(self.world_size)]
        self._wait(self._backend.allgather([out], [vector.contiguous()]))
        return torch.stack(out)

    def sum_into(self, out: torch.Tensor, local: torch.Tensor) -> None:
        """Adds every rank's integers into `out`; `local` stays as it is.

        Args:
            out: int32 `[n]`, overwritten. Its content is only valid when this returns.
            local: int32 `[n]` on this rank's device.
        """
        out.copy_(local)
        if self._backend is None:
            return
        options = AllreduceOptions()
        options.reduceOp = ReduceOp.SUM
        self._wait(self._backend.allreduce([out], options))

    def broadcast(self, tensor: torch.Tensor, root: int) -> None:
        """Fills `tensor` on every rank with the root's content."""
        if self._backend is None:
            return
        options = BroadcastOptions()
        options.rootRank = root
        options.rootTensor = 0
        self._wait(self._backend.broadcast([tensor], options))

    def barrier(self) -> None:
        """Returns when every rank has come here."""
        self.gather(torch.zeros(1, dtype=torch.int64))

    def _wait(self, work: torch.distributed.Work) -> None:
        try:
            with beat.waiting():
                work.wait()
        except RuntimeError as error:
            raise GroupBroken(f"rank {self.rank} lost a peer: {in_short(str(error))}") from error


def in_short(said: str) -> str:
    """What Gloo says of a lost connection, without the place in its source and its advice."""
    line = said.splitlines()[0] if said else ""
    line = re.sub(r"^\[[^\]]*:\d+\] ", "", line)
    return line.partition(" This is typically caused by")[0].rstrip(".")
