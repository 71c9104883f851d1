"""A rank's end of the pipe to its worker: JSON messages, one a line (see `spec.ranks`)."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.errors import FleetError
from llamaforge.spec.ranks import (
    CheckpointDone,
    FromRank,
    Metric,
    Note,
    Progress,
    Rendezvous,
    Stop,
    ToRank,
)
from llamaforge.train.report import Silent

LOOK_SECONDS = 0.1
"""Between two looks for a wish to stop, while a rank waits for others."""


class Control:
    """Reads what the worker says in a thread, and writes reports.

    Args:
        connection: one end of a socket pair; owned from here on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._rendezvous: Rendezvous | None = None
        self._told = threading.Event()
        self._stop: str | None = None
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def say(self, report: FromRank) -> None:
        """Sends one report. A worker that is gone is noticed by the listener, not here."""
        line = msgspec.json.encode(report) + b"\n"
        with self._lock:
            try:
                self._connection.sendall(line)
            except OSError:
                self._stop = self._stop or "the worker is gone"

    def rendezvous(self) -> Rendezvous:
        """Waits for the address of the generation's store, as long as rank 0's node takes.

        Raises:
            FleetError: told to leave, or the worker left.
        """
        while not self._told.wait(LOOK_SECONDS):
            self.leave_if_asked()
        if self._rendezvous is None:
            self.leave_if_asked()
        assert self._rendezvous is not None
        return self._rendezvous

    def leave_if_asked(self) -> None:
        """Raises FleetError when this rank should leave, and there is nothing to save yet."""
        if self._stop is not None:
            raise FleetError(f"stopped before training began: {self._stop}")

    def stop(self) -> str | None:
        """Why this rank should leave at the next step boundary, or None."""
        return self._stop

    def ask_to_stop(self, reason: str) -> None:
        """The same wish from inside the process, such as a signal."""
        self._stop = reason

    def _listen(self) -> None:
        decoder = msgspec.json.Decoder(ToRank)
        with self._connection.makefile("rb") as lines:
            for line in lines:
                message = decoder.decode(line)
                if isinstance(message, Stop):
                    self._stop = message.reason
                else:
                    self._rendezvous = message
                    self._told.set()
        self._stop = self._stop or "the worker is gone"
        self._told.set()


class ProgressReporter(Silent):
    """The reporter of every rank in a fleet but the first: its worker hears where the job is."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def progress(self, word: Progress) -> None:
        """Says where the job is."""
        self._control.say(word)


class ControlReporter(ProgressReporter):
    """The reporter of rank 0 in a fleet: everything goes up the pipe."""

    def metric(self, line: dict[str, Any]) -> None:
        """Sends a metric line."""
        self._control.say(Metric(line=line))

    def note(self, kind: str, text: str, **fields: Any) -> None:
        """Sends an event."""
        self._control.say(Note(kind=kind, text=text, fields=fields))

    def checkpoint(self, step: int, path: Path) -> None:
        """Says that a checkpoint stands."""
        self._control.say(CheckpointDone(step=step, path=str(path)))
