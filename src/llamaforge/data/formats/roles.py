"""Who speaks in a turn, in whatever words a file uses, and why some speakers are refused."""

from __future__ import annotations

from collections.abc import Mapping

from llamaforge.data.formats.record import Record
from llamaforge.data.rows import Role
from llamaforge.errors import DataError

TOOL_ROLES = frozenset({"tool", "function", "function_call", "observation", "tool_call", "ipython"})
TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call")

_NO_TOOLS = "remove rows with tools; this version trains plain conversations only"


def check_role(turn: Record, said: str, known: Mapping[str, Role], number: int) -> Role:
    """The canonical role of turn `number` (1-based).

    Raises:
        DataError: a tool's role, or one that is not known.
    """
    role = known.get(said.strip().lower())
    if role is not None:
        return role
    if said.strip().lower() in TOOL_ROLES:
        raise turn.error(f"turn {number} is spoken by a tool ({said!r})", _NO_TOOLS)
    raise turn.error(f"turn {number} has the role {said!r}", f"known roles: {', '.join(known)}")


def refuse_tools(record: Record) -> None:
    """Refuses a row or a turn that declares or calls tools.

    Raises:
        DataError: names the key.
    """
    for key in TOOL_KEYS:
        if record.values.get(key):
            raise record.error(f"{key!r} is used here", _NO_TOOLS)


def has_turns(record: Record, name: str, keys: tuple[str, ...]) -> bool:
    """Whether a column holds a list whose first object has these keys; for detection only."""
    try:
        turns = record.inner(name)
    except DataError:
        return False
    return not turns or all(turns[0].has(key) for key in keys)
