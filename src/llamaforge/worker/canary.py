"""The canary slice of this node, computed once for each boot and each update.

    python -m llamaforge.train.canary --precision bf16 --threads 1

It takes seconds, most of them to import torch; so the result is kept in the cache, under a key of
everything that may change it. The program runs as a rank would: confined, in a rank's environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from llamaforge.errors import LlamaForgeError
from llamaforge.worker import fingerprint
from llamaforge.worker.orphans import own_child
from llamaforge.worker.rank_runner import Exit, Rank, RankRunner

FILE = "canary.json"
KEPT = 16
"""Results in the file, the newest last."""

log = logging.getLogger("llamaforge.worker")


class Canary:
    """This node's canary slices.

    Args:
        runner: starts the program.
        cache: the node's cache.
        state: the worker's state folder; the program works in a folder below it.
        made_of: tells what the node is made of.
        boot: tells which boot this is.
    """

    def __init__(
        self,
        runner: RankRunner,
        cache: Path,
        state: Path,
        *,
        made_of: Callable[[], Mapping[str, str]] = fingerprint.fingerprint,
        boot: Callable[[], str] = fingerprint.boot,
    ) -> None:
        self._runner, self._file, self._folder = runner, cache / FILE, state / "canary"
        self._made_of, self._boot = made_of, boot
        self._computing: dict[str, asyncio.Task[str]] = {}

    @property
    def busy(self) -> bool:
        """Whether a program runs now: a child that no job has left behind."""
        return bool(self._computing)

    async def digest(self, precision: str, threads: int) -> str:
        """The SHA-256 of the slice's gradient, computed unless it is known.

        Who stops waiting stops nothing: the result is kept for the next time.

        Args:
            precision: `bf16` or `fp32`.
            threads: compute threads.

        Raises:
            LlamaForgeError: it could not be computed; says why.
        """
        key = self._key(precision, threads)
        if known := self._known().get(key):
            return known
        if key not in self._computing:
            task = asyncio.ensure_future(self._compute(key, precision, threads))
            self._computing[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(self._computing[key])

    async def close(self) -> None:
        """Ends programs that run."""
        tasks = list(self._computing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, key: str, task: asyncio.Task[str]) -> None:
        self._computing.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the canary slice could not be computed: %s", error)

    def _key(self, precision: str, threads: int) -> str:
        told = {
            **self._made_of(),
            "boot": self._boot(),
            "microcode": fingerprint.microcode(),
            "program": list(self._runner.canary),
            "precision": precision,
            "threads": threads,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    # ── the program ───────────────────────────────────────────────────────────────────────────

    async def _compute(self, key: str, precision: str, threads: int) -> str:
        with own_child():
            found = await self._run(precision, threads)
        self._keep(key, found)
        return found

    async def _run(self, precision: str, threads: int) -> str:
        """Runs the program. Raises LlamaForgeError where it gives no digest."""
        lines: list[str] = []
        self._folder.mkdir(parents=True, exist_ok=True)
        rank = await self._runner.start_script(
            (*self._runner.canary, "--precision", precision, "--threads", str(threads)),
            self._folder,
            cwd=self._folder,
            defaults={},
            environment={},
            on_line=lines.append,
        )
        end = await _to_its_end(rank)
        found = _found(lines)
        if not found:
            how = f"exit code {end.code}" if end.signal is None else f"signal {end.signal}"
            said = lines[-1] if lines else "it said nothing"
            raise LlamaForgeError(f"the canary slice could not be computed ({how}): {said}")
        return found

    # ── what is known ─────────────────────────────────────────────────────────────────────────

    def _known(self) -> dict[str, str]:
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _keep(self, key: str, digest: str) -> None:
        """Writes a result down; where that can't be, it is computed again next time."""
        newest = [*self._known().items(), (key, digest)][-KEPT:]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=FILE)
            with os.fdopen(handle, "w") as file:
                json.dump(dict(newest), file)
            Path(name).replace(self._file)
        except OSError as why:
            log.warning("the canary slice's digest can't be kept: %s", why)


async def _to_its_end(rank: Rank) -> Exit:
    try:
        return await rank.wait()
    except asyncio.CancelledError:
        rank.kill()
        raise


def _found(lines: list[str]) -> str:
    """The digest among the program's lines; empty where there is none."""
    for line in reversed(lines):
        if match := re.fullmatch(r'\{"canary": "([0-9a-f]{1,64})"\}', line.strip()):
            return match[1]
    return ""
