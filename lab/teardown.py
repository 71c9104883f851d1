"""Undoing what a ledger says, newest first, whatever state its lab was left in.

Every step may find its work done already. What can't be undone is named in the end and stays in the
ledger, so that `python -m lab clean` can try again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from lab.cgroups import remove_group
from lab.commands import call
from lab.errors import LabError
from lab.ledger import Ledger, Process, claiming, forget_folder, ledgers


def _unmount(name: str) -> None:
    deadline = time.monotonic() + 5
    while name in _mounted():
        # Lazily in the end: a process of a person who looks into the tree must not keep the lab.
        late = time.monotonic() > deadline
        call("umount", *(["--lazy"] if late else []), name, check=late)
        if name in _mounted():
            time.sleep(0.05)


def _mounted() -> set[str]:
    return {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}


def _remove_link(name: str) -> None:
    if Path("/sys/class/net", name).exists():
        call("ip", "link", "delete", name, check=False)
        if Path("/sys/class/net", name).exists():
            raise LabError(f"the network link {name} can't be removed")


def _remove_table(name: str) -> None:
    family, table = name.split()
    tables = [line.split()[1:] for line in call("nft", "list", "tables").stdout.splitlines()]
    if [family, table] in tables:
        call("nft", "delete", "table", family, table)


def _remove_folder(name: str) -> None:
    below = [where for where in _mounted() if where.startswith(name.rstrip("/") + "/")]
    if below:
        raise LabError(f"{name} is not removed: {below[0]} is still mounted in it")
    if Path(name).exists():
        shutil.rmtree(name)


def _remove_file(name: str) -> None:
    Path(name).unlink(missing_ok=True)


def _remove_empty_folder(name: str) -> None:
    with contextlib.suppress(OSError):
        Path(name).rmdir()


_UNDO: dict[str, Callable[[str], None]] = {
    "cgroup": lambda name: remove_group(Path(name)),
    "mount": _unmount,
    "link": _remove_link,
    "table": _remove_table,
    "folder": _remove_folder,
    "file": _remove_file,
    "empty-folder": _remove_empty_folder,
}


def take_down(ledger: Ledger, owner: Process | None = None) -> None:
    """Undo everything in a ledger, then remove it. Raises LabError naming what is left.

    With `owner`, only if it is that owner's: a name is free again as soon as its lab is gone, and
    the next lab that takes it must not be mistaken for it.

    `forget_folder` removes the ledgers' folder afterwards, if this was the last one.
    """
    with ledger.taken() as mine:
        if not mine or (owner is not None and ledger.owner() != owner):
            return
        left = []
        for kind, name in reversed(ledger.entries()):
            try:
                _UNDO[kind](name)
            except (LabError, OSError) as error:
                left.append(f"{kind} {name}: {error}")
        if left:
            raise LabError(
                f"lab {ledger.name} is not gone; try `python -m lab clean`:\n  " + "\n  ".join(left)
            )
        ledger.path.unlink()


def clean(everything: bool = False) -> list[str]:
    """Take down labs whose owner died, or all of them; the names of those that went.

    Raises LabError in the end, when something of one is left.
    """
    gone, left = [], []
    with claiming():
        for ledger in ledgers():
            owner = ledger.owner()
            if everything or owner is None or not owner.alive:
                try:
                    take_down(ledger)
                    gone.append(ledger.name)
                except LabError as error:
                    left.append(str(error))
    forget_folder()
    if left:
        raise LabError("\n".join(left))
    return gone
