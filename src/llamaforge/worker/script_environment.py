"""What a script's ranks find in their environment: what torchrun gives, name by name.

Values are those of torch/distributed/elastic/agent/server/local_elastic_agent.py. One differs:
TORCHELASTIC_USE_AGENT_STORE is False, as under torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1,
since rank 0 hosts the store itself. `docs/RUN.md` has the list for people.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

OUTPUT = "LLAMAFORGE_OUTPUT"
"""Names the folder whose files become the job's results; on rank 0's node they are fetched."""
RESERVED = frozenset(
    {
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", OUTPUT),
    }
)
"""What nobody may choose; nor anything that begins with TORCHELASTIC_."""
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's place among the others."""

    job_id: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: int
    """Which of the nodes, counted from 0."""
    nodes: int
    host: str
    """Where rank 0's store listens: IP address."""
    port: int
    restarts: int
    max_restarts: int
    error_file: Path
    """Where torch's `@record` leaves an error."""
    output: Path
    """The node's folder for results."""


def given(seat: Seat) -> dict[str, str]:
    """What is set whatever stood there before."""
    return {
        "RANK": str(seat.rank),
        "LOCAL_RANK": str(seat.local_rank),
        "GROUP_RANK": str(seat.node),
        "ROLE_RANK": str(seat.rank),
        "ROLE_NAME": "default",
        "WORLD_SIZE": str(seat.world_size),
        "LOCAL_WORLD_SIZE": str(seat.local_world_size),
        "GROUP_WORLD_SIZE": str(seat.nodes),
        "ROLE_WORLD_SIZE": str(seat.world_size),
        "MASTER_ADDR": seat.host,
        "MASTER_PORT": str(seat.port),
        "TORCHELASTIC_RESTART_COUNT": str(seat.restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(seat.max_restarts),
        "TORCHELASTIC_RUN_ID": seat.job_id,
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_ERROR_FILE": str(seat.error_file),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": SIGNALS,
        OUTPUT: str(seat.output),
    }


def defaults(seat: Seat, interface: str) -> dict[str, str]:
    """What is set where nobody has said otherwise.

    Args:
        seat: of the rank.
        interface: the one that has this node's address. Gloo and RPC would look for their own
            address by the machine's name, which leads to 127.0.1.1 on many machines; empty where
            it is not known.
    """
    chosen = {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        # Torch names peers in its logs, and would wait for a missing name server for half a minute.
        "RES_OPTIONS": "timeout:1 attempts:1",
    }
    if seat.local_world_size > 1:
        chosen["OMP_NUM_THREADS"] = "1"
    if interface:
        chosen.update(GLOO_SOCKET_IFNAME=interface, TP_SOCKET_IFNAME=interface)
    return chosen


def reserved(name: str) -> bool:
    """Whether a variable can't be chosen by who submits a script."""
    return name in RESERVED or name.startswith("TORCHELASTIC_")
