"""What a rank tells the world while it trains. The engine knows only the `Reporter` protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from llamaforge.spec.ranks import Progress


class Reporter(Protocol):
    """Receives what the engine has to say. Only rank 0's words reach a person."""

    def metric(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""

    def note(self, kind: str, text: str, **fields: Any) -> None:
        """One line of events.jsonl."""

    def checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint has been committed at `path`."""

    def progress(self, word: Progress) -> None:
        """Where the job is; every rank's is heard by its own worker."""


class Silent:
    """The reporter of a rank that nobody listens to."""

    def metric(self, line: dict[str, Any]) -> None:
        """Says nothing: rank 0 has the same line."""

    def note(self, kind: str, text: str, **fields: Any) -> None:
        """Says nothing: rank 0 has the same note."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Never called: only rank 0 saves."""

    def progress(self, word: Progress) -> None:
        """Says nothing: there is no worker."""
