"""How `python -m lab VERB` reaches the lab that another terminal holds open: a socket on its disk.

One line of JSON each way. Only root can connect.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from pathlib import Path
from typing import Any

from lab.disk import scratch_of
from lab.errors import LabError
from lab.ledger import ledgers


def _path(name: str) -> Path:
    return scratch_of(name) / "door"


class Door:
    """The side of the lab."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(_path(name)))
        _path(name).chmod(0o600)
        self._socket.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)

    def knock(self, seconds: float) -> tuple[socket.socket, dict[str, Any]] | None:
        """Whoever comes within a time, and what is asked. Reply with `answer`."""
        if not self._selector.select(seconds):
            return None
        visitor, _ = self._socket.accept()
        visitor.settimeout(5)
        try:
            with visitor.makefile() as lines:
                return visitor, json.loads(lines.readline())
        except (OSError, json.JSONDecodeError):
            visitor.close()
            return None

    def close(self) -> None:
        """Let nobody in any more."""
        self._selector.close()
        self._socket.close()


def answer(visitor: socket.socket, what: dict[str, Any]) -> None:
    """Reply and part. A visitor who has left is no problem of the lab's."""
    with visitor:
        try:
            visitor.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            return


def open_lab() -> str:
    """The name of the lab that is up. Raises LabError when none is, or several are."""
    names = [ledger.name for ledger in ledgers() if _path(ledger.name).exists()]
    if not names:
        raise LabError("no lab is up; start one with: make lab")
    if len(names) > 1:
        raise LabError(f"several labs are up; name one with --lab: {', '.join(names)}")
    return names[0]


def named(name: str) -> str:
    """The name again. Raises LabError when there is no such lab, or nobody holds its door."""
    names = [ledger.name for ledger in ledgers() if _path(ledger.name).exists()]
    if name not in names:
        there = f"there are {', '.join(names)}" if names else "none is up; start one with: make lab"
        raise LabError(f"there is no lab {name!r}; {there}")
    return name


def ask(name: str, seconds: float = 120, **request: Any) -> Any:
    """Ask a lab that is up; its result. Raises LabError with its own words, or when it is gone."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(seconds)
        try:
            door.connect(str(_path(name)))
            door.sendall(json.dumps(request).encode() + b"\n")
            with door.makefile() as lines:
                line = lines.readline()
        except OSError as error:
            raise LabError(f"lab {name} does not answer ({error}); try: make lab-down") from None
    if not line:
        raise LabError(f"lab {name} ended before it answered")
    reply = json.loads(line)
    if "error" in reply:
        raise LabError(reply["error"])
    return reply["result"]


def wait_gone(name: str, seconds: float = 60) -> None:
    """Wait until nothing is left of a lab."""
    deadline = time.monotonic() + seconds
    while any(ledger.name == name for ledger in ledgers()):
        if time.monotonic() > deadline:
            raise LabError(f"lab {name} is still there; run: python -m lab clean --all")
        time.sleep(0.1)
