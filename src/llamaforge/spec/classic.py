"""The keys in torchrun's store that a worker and the ranks of a classic job both use.

The classic way is plain torchrun: its agent on the coordinator keeps a key-value store
(`torch.distributed.TCPStore`), and everything that nodes tell each other before the process group
exists goes through it. A worker talks to that store without torch (`worker.store_client`), ranks
talk to it through torch (`train.exchange`); this page is what they must agree on.
"""

from __future__ import annotations

JOINED_NODES = "init/"
"""Where torch counts the clients that joined: one per node under torchrun's static rendezvous."""

AGENT_ARRIVED = "/none/torchelastic/role_info/0"
"""Set by torchrun on the coordinator once all of *its* nodes have joined.

`none` is torchrun's default run id; the leading slash is torch's prefix for clients' keys.
"""

REFUSAL = "refusal"
"""Why the attempt can't go on: a `spec.ranks.Failed` as JSON. The first one stays."""


def room(restart: int) -> str:
    """The prefix of the project's keys in attempt number `restart` of one torchrun (from 0)."""
    return f"llamaforge/{restart}"


def raw_refusal() -> str:
    """`REFUSAL` of the first attempt as the store itself names it."""
    return f"/{room(0)}/{REFUSAL}"


def claim(node_rank: int) -> str:
    """The raw key by which a worker takes a node rank, once per store.

    It is the nonce of the classic way: a store that carries it has been joined under this node
    rank already, and is never joined again, whatever became of that.
    """
    return f"/llamaforge/claim/{node_rank}"
