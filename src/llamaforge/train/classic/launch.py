"""Where torchrun put this process: its variables, read once and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamaforge.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One process among those that torchrun started; alone where torchrun did not."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    """Processes on this node."""
    node: int = 0
    """This node's rank among the nodes."""
    nodes: int = 1
    store_host: str = ""
    """Host of torchrun's store; empty without torchrun."""
    store_port: int = 0
    attempt: int = 0
    """How often torchrun has started the processes again."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Launch:
        """Reads torchrun's variables.

        Returns:
            The place of this process; the only one when torchrun did not start it.

        Raises:
            UserError: some of the variables are there but not all, or torchrun keeps no store.
        """
        if "TORCHELASTIC_RUN_ID" not in environ:
            return cls()
        if environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            raise UserError(
                "this torchrun does not share its own store with the training processes",
                hint="use --master_addr and --master_port, no --rdzv-backend, and "
                "unset TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
            )
        return cls(
            rank=_number(environ, "RANK"),
            world_size=_number(environ, "WORLD_SIZE"),
            local_rank=_number(environ, "LOCAL_RANK"),
            local_ranks=_number(environ, "LOCAL_WORLD_SIZE"),
            node=_number(environ, "GROUP_RANK"),
            nodes=_number(environ, "GROUP_WORLD_SIZE"),
            store_host=environ.get("MASTER_ADDR", ""),
            store_port=_number(environ, "MASTER_PORT"),
            attempt=_number(environ, "TORCHELASTIC_RESTART_COUNT"),
        )

    @property
    def leads_node(self) -> bool:
        """Whether this process does what its node needs only once."""
        return self.local_rank == 0


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name, "")
    if not value.isdigit():
        raise UserError(
            f"torchrun's variable {name} is {value!r}",
            hint="start with `python3 -m torch.distributed.run … distributed_train.py …`",
        )
    return int(value)
