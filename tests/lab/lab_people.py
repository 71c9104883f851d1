"""People of a lab's fleet: what they type, at a terminal or in a script."""

from __future__ import annotations

import json
from subprocess import CompletedProcess

from lab import Node

TERMINAL = "/srv/llamaforge/tests/lab/terminal.py"


def at_a_terminal(
    node: Node,
    command: str,
    *dialogue: tuple[str, str],
    user: str | None = None,
    seconds: float = 60,
) -> CompletedProcess[str]:
    """Lets somebody type at a terminal of a node.

    Args:
        node: whose terminal.
        command: what runs there.
        dialogue: what to wait for, and what is typed then.
        user: who types; None for root.
        seconds: after which the person gives up (exit code 124).
    """
    words = ("python3", TERMINAL, str(seconds), "bash", "-c", command)
    told = json.dumps([list(pair) for pair in dialogue])
    return node.run(*words, input=told, user=user, check=False, timeout=seconds + 20)


def make_user(node: Node, name: str, *groups: str) -> None:
    """An account with a home, in some groups."""
    more = ("--groups", ",".join(groups)) if groups else ()
    node.run("useradd", "--create-home", "--shell", "/bin/bash", *more, name)
