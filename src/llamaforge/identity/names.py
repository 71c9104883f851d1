"""The names that certificates carry, and which role each one gives.

They are names of this system alone: nobody ever looks them up. A client asks for the name of
whom it wants to reach, whatever address it dials, and the ordinary host name check of TLS then
pins the role.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

COORDINATOR_HOST = "coordinator.llamaforge.internal"
_ROLE = re.compile(r"(.+)\.(node|person)\.llamaforge\.internal")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""At most a DNS label's length; dots are allowed, since host names have them."""


class Role(NamedTuple):
    """Whom a certificate names."""

    kind: Literal["coordinator", "node", "person"]
    name: str
    """Of the node or the person; empty for the coordinator."""


def node_host(name: str) -> str:
    """The name in a node's certificate; in a fleet, names differ in more than their case."""
    return f"{name}.node.llamaforge.internal"


def person_host(name: str) -> str:
    """The name in a person's certificate."""
    return f"{name}.person.llamaforge.internal"


def fits(name: str) -> bool:
    """Whether a node or a person can be called so in a certificate."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def role_of(host: str) -> Role | None:
    """The role that a certificate's name gives; None for a name that isn't ours."""
    if host == COORDINATOR_HOST:
        return Role("coordinator", "")
    found = _ROLE.fullmatch(host)
    if found is None:
        return None
    return Role("node" if found[2] == "node" else "person", found[1])
