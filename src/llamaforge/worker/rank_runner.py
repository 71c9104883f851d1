"""The seam between a node's job and its rank processes, so that the job is tested without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.spec.ranks import Assignment, FromRank, ToRank


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a rank's process ended. Exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: int | None = None
    ordered: bool = False
    """True when it died of a signal that we had sent, or failed after one."""
    last_lines: tuple[str, ...] = ()


class Rank(Protocol):
    """A running rank."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def say(self, message: ToRank) -> None:
        """Sends it a message; one that is gone hears nothing."""

    def terminate(self) -> None:
        """Asks it and its children to end (SIGTERM)."""

    def kill(self) -> None:
        """Ends it and its children (SIGKILL)."""

    async def wait(self) -> Exit:
        """Waits until it is gone and everything that it said has been passed on."""


class RankRunner(Protocol):
    """Starts ranks."""

    @property
    def canary(self) -> tuple[str, ...]:
        """The program of a canary slice (`train.canary`): the arguments after `python`."""

    def reconfigure(self, settings: WorkerSettings, exports: Mapping[str, str]) -> None:
        """Takes over settings that were read again, for the ranks to come.

        Args:
            settings: of the worker.
            exports: what the settings file adds to the ranks' environment.
        """

    async def start(
        self,
        assignment: Assignment,
        folder: Path,
        *,
        on_report: Callable[[FromRank], None],
        on_line: Callable[[str], None],
    ) -> Rank:
        """Starts one rank.

        Args:
            assignment: its place.
            folder: where its assignment file is written.
            on_report: told everything that it reports.
            on_line: told every line of its standard output and error.

        Raises:
            OSError: the process can't be started.
        """

    async def start_script(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        cwd: Path,
        defaults: Mapping[str, str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> Rank:
        """Starts one rank of somebody's own script.

        Args:
            arguments: after `python -u`.
            folder: of the job; the only one, besides caches, that it may write to.
            cwd: its working directory.
            defaults: variables where any rank's environment has none.
            environment: variables that go over it.
            on_line: told every line of its standard output and error.

        Raises:
            OSError: the process can't be started.
        """
