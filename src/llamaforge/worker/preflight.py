"""Looks at this node and at its links before a generation; answers within seconds.

A refusal says what is wrong here and how to mend it. What could not be found out in time is a
warning: a slow machine is no broken one.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llamaforge.bundle.eviction import Cache, text
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import LlamaForgeError, NoSpace
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire.messages import LinkSpeed, Preflight, PreflightReport
from llamaforge.worker import interface
from llamaforge.worker.canary import Canary
from llamaforge.worker.fingerprint import fingerprint
from llamaforge.worker.link_test import LinkTest
from llamaforge.worker.own_address import is_own_address

SECONDS = 13.0
"""How long everything together may take; the coordinator waits a little longer."""
SPARE_BYTES = 64 << 20
"""Room in the state folder that ranks' small files may need."""

Answer = TypeVar("Answer")


class Trouble(LlamaForgeError):
    """This node can't take part."""


class Slow(Trouble):
    """Nor can it as long as it is so slow."""


class Preflights:
    """Answers the coordinator's question.

    Args:
        settings: tells the settings of the moment.
        canary: computes canary slices.
        links: measures links.
    """

    def __init__(
        self, settings: Callable[[], WorkerSettings], canary: Canary, links: LinkTest
    ) -> None:
        self._settings, self._canary, self._links = settings, canary, links

    async def answer(self, question: Preflight, *, address: str) -> PreflightReport:
        """Looks, at everything at the same time.

        Args:
            question: what is to come.
            address: the one at which this node's ranks are to be reached.
        """
        warnings: list[str] = []
        refusal, digest, links = await asyncio.gather(
            self._refusal(question, address),
            self._digest(question, warnings),
            self._linked(question, warnings),
        )
        cache = Path(self._settings().cache_dir)
        return PreflightReport(
            job_id=question.job_id,
            generation=question.generation,
            refusal=refusal.message if refusal else "",
            hint=refusal.hint if refusal else "",
            passing=isinstance(refusal, NoSpace | Slow),
            warnings=tuple(warnings),
            canary=digest,
            links=links,
            disk_free=shutil.disk_usage(_existing(cache)).free,
            time=time.time(),
            fingerprint=fingerprint(),
        )

    async def _refusal(self, question: Preflight, address: str) -> LlamaForgeError | None:
        try:
            self._check_address(question, address)
            room = asyncio.to_thread(self._check_room, question.manifest)
            await asyncio.wait_for(room, SECONDS)
        except LlamaForgeError as why:
            return why
        except asyncio.TimeoutError:
            return Slow(
                f"its disk did not answer within {SECONDS:.0f} s",
                hint=f"look at the disk of {self._settings().cache_dir}: journalctl -k",
            )
        except OSError as why:
            where = why.filename or self._settings().cache_dir
            return Trouble(
                f"{where} can't be used: {why.strerror or why}",
                hint="choose other places with the worker's --cache-dir and --state-dir",
            )
        return None

    async def _digest(self, question: Preflight, warnings: list[str]) -> str:
        if not question.canary:
            return ""
        wanted = self._canary.digest(question.canary, question.threads)
        try:
            return await asyncio.wait_for(wanted, SECONDS)
        except asyncio.TimeoutError:
            warnings.append(
                f"its canary slice was not computed within {SECONDS:.0f} s; the next job finds it"
            )
        except (LlamaForgeError, OSError) as why:
            warnings.append(str(why).splitlines()[0])
        return ""

    async def _linked(self, question: Preflight, warnings: list[str]) -> tuple[LinkSpeed, ...]:
        measuring = self._links.measure(question.peers, own=self._settings().name)
        try:
            return await asyncio.wait_for(measuring, SECONDS)
        except asyncio.TimeoutError:
            warnings.append(f"its links were not all measured within {SECONDS:.0f} s")
            return ()

    # ── what speaks against it ────────────────────────────────────────────────────────────────

    def _check_address(self, question: Preflight, address: str) -> None:
        """Raises Trouble where the others could not reach this node's ranks there."""
        here = {str(found): name for name, found in interface.addresses()}
        try:
            own = is_own_address(address)
        except ValueError:
            own = False
        if not own:
            raise Trouble(
                f"its address {address or '(none)'} is on none of its interfaces",
                hint=f"tell its worker one of these with --address: {_listed(here)}",
            )
        others = [peer.address for peer in question.peers if peer.address != address]
        if others and _is_loopback(address) and not all(map(_is_loopback, others)):
            raise Trouble(
                f"its address {address} can be reached from this machine only",
                hint=f"tell its worker another one with --address: {_listed(here)}",
            )

    def _check_room(self, manifest: Manifest) -> None:
        """Raises NoSpace where the bundle has no room, OSError where a folder can't be read."""
        settings = self._settings()
        state, folder = _existing(Path(settings.state_dir)), Path(settings.cache_dir)
        if (free := shutil.disk_usage(state).free) < SPARE_BYTES:
            raise NoSpace(
                f"{state} has {text(free)} free, {text(SPARE_BYTES)} are the least",
                hint="make room there, or choose another place with the worker's --state-dir",
            )
        needed = sum(entry.size for entry in BlobStore(folder / "blobs").missing(manifest))
        if not needed:
            return
        cache = Cache(
            folder, settings.cache_bytes, in_use=lambda: [e.sha256 for e in manifest.entries]
        )
        if needed <= cache.free and settings.cache_bytes is None:
            return  # without a survey, which reads the whole cache
        left = cache.sweep(needed=needed, dry_run=True)
        room = cache.free + sum(item.size for item in left.gone)
        limit = settings.cache_bytes
        over = limit is not None and left.size + needed > limit
        if needed > room or over:
            most = f", whose limit is {text(limit)}" if over and limit is not None else ""
            raise NoSpace(
                f"the job's files need {text(needed)} of room in {folder}{most}; "
                f"{text(room)} can be had on its disk",
                hint="make room there (what could go: llamaforge clean --dry-run), or choose "
                "another place with the worker's --cache-dir",
            )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _listed(here: dict[str, str]) -> str:
    there = [f"{found} ({name})" for found, name in here.items() if not _is_loopback(found)]
    return ", ".join(there) or "none but its own loopback is up"
