"""What a worker looks at before it works: its folders, its libraries, its clock.

What is missing is one line in the journal and in the status, with what to do. What may come by
itself (a mount, a clock that is set late, room on a disk) is looked at again; what can't, such as
an installation without torch, ends the worker with the exit code that systemd does not restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamaforge.spec import mounts
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker import facts

AGAIN_SECONDS = 5.0
"""Between two looks while something is missing."""
HANGS_SECONDS = 5.0
"""After which a look at a folder is taken for hanging: a network mount without its server."""
ROOM_BYTES = 100 << 20
"""Free bytes without which no job can start."""
EARLIEST = 1_750_000_000
"""Seconds since 1970; a clock before this (June 2025) has not been set."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that keeps the worker from working."""

    text: str
    hint: str
    final: bool = False
    """Whether only a person can change it."""

    def __str__(self) -> str:
        return f"{self.text} ({self.hint})"


Answer = asyncio.Future["Trouble | None"]
Hanging = dict[str, Answer]
"""Looks without an answer yet, by what was looked at."""


async def look(settings: WorkerSettings, hanging: Hanging | None = None) -> Trouble | None:
    """The first trouble, or None. A look that hangs is itself the trouble.

    Args:
        settings: of the worker.
        hanging: given again and again, it lets a look that hangs be waited for instead of
            starting another: each is a thread that only the mount's server can end.
    """
    hanging = {} if hanging is None else hanging
    checks: dict[str, Callable[[], Trouble | None]] = {
        f"the libraries in {sys.prefix}": _libraries,
        "the clock": _clock,
        settings.state_dir: lambda: _folder(settings.state_dir, "LLAMAFORGE_STATE_DIR"),
        settings.cache_dir: lambda: _folder(settings.cache_dir, "LLAMAFORGE_CACHE_DIR"),
    }
    if settings.hf_home is not None:
        home = settings.hf_home
        checks[home] = lambda: _readable(home, "HF_HOME")
    for what, check in checks.items():
        trouble = await _in_time(what, check, hanging)
        if trouble is not None:
            return trouble
    return None


async def _in_time(
    what: str, check: Callable[[], Trouble | None], hanging: Hanging
) -> Trouble | None:
    """The answer of a check, unless it takes too long."""
    if what not in hanging:
        hanging[what] = _asked(check)
    answer = hanging[what]
    done, _ = await asyncio.wait({answer}, timeout=HANGS_SECONDS)
    if done:
        del hanging[what]
        return answer.result()
    mount = mount_of(what)
    return Trouble(
        text=f"{what} does not answer" + (f": {mount} hangs" if mount else ""),
        hint="is the server of this mount there? `llamaforge doctor` looks closer",
    )


def _asked(check: Callable[[], Trouble | None]) -> Answer:
    """Runs a check in a thread that nobody has to wait for: a hung mount can't be interrupted."""
    loop = asyncio.get_running_loop()
    answer: Answer = loop.create_future()

    def run() -> None:
        found = check()
        with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile
            loop.call_soon_threadsafe(_answer, answer, found)

    threading.Thread(target=run, name="self-check", daemon=True).start()
    return answer


def _answer(question: asyncio.Future[Trouble | None], found: Trouble | None) -> None:
    if not question.done():
        question.set_result(found)


def _libraries() -> Trouble | None:
    if facts.installed("torch", sys.path):
        return None
    return Trouble(
        text=f"torch is not installed in {sys.prefix}",
        hint="run install.sh again, or start the worker with the python that has it",
        final=True,
    )


def _clock() -> Trouble | None:
    if time.time() >= EARLIEST:
        return None
    today = time.strftime("%Y-%m-%d")
    return Trouble(text=f"the clock says {today}", hint="set it: timedatectl set-ntp true")


def _folder(folder: str, setting: str) -> Trouble | None:
    """A folder that is written to."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder, f".probe-{os.getpid()}")
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as why:
        hint = f"give it to user {_user()}, or set {setting} to another one"
        if why.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room on its disk"
        return Trouble(text=f"{folder} can't be written: {why.strerror}", hint=hint)
    if free < ROOM_BYTES:
        left = f"{free / 1e6:.0f} MB free, {ROOM_BYTES / 1e6:.0f} are the least"
        return Trouble(text=f"no room on the disk of {folder}: {left}", hint="make room there")
    return None


def _readable(folder: str, setting: str) -> Trouble | None:
    """A folder that others may share, such as a mount; it is made where it can be."""
    path = Path(folder)
    try:
        with contextlib.suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
        os.scandir(path).close()
    except FileNotFoundError:
        return Trouble(
            text=f"{setting}={folder} is not there",
            hint=f"mount it, or make it: install -d -o {_user()} {folder}",
        )
    except OSError as why:
        hint = f"let user {_user()} read it; under systemd see ProtectHome= and ReadWritePaths="
        return Trouble(text=f"{setting}={folder} can't be read: {why.strerror}", hint=hint)
    return None


def mount_of(path: str, table: Path = Path(mounts.TABLE)) -> str:
    """The mount that a path is on, as `TYPE SOURCE on POINT`; "" for what is no path.

    Args:
        path: an absolute path.
        table: the kernel's.
    """
    found = mounts.holding(path, mounts.read(table.read_text(encoding="utf-8", errors="replace")))
    return f"{found.kind} {found.source} on {found.point}" if found else ""


def _user() -> str:
    import pwd  # only when there is something to say

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
