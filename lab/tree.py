"""A node's file tree seen from the host: links resolved inside it, owners by its own accounts."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lab.errors import LabError


def inside(root: Path, name: str | Path) -> Path:
    """Where `name` of a node lies below `root`, its links followed as the node would.

    The last part may be missing. Raises LabError on a loop of links.
    """
    todo = list(reversed(PurePosixPath("/", name).parts[1:]))
    found: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            found = found[:-1]
            continue
        here = root.joinpath(*found, part)
        if not here.is_symlink():
            found.append(part)
            continue
        links += 1
        if links > 40:
            raise LabError(f"{name} is a loop of links")
        target = PurePosixPath(here.readlink())
        found = [] if target.is_absolute() else found
        todo += reversed([word for word in target.parts if word != "/"])
    return root.joinpath(*found)


def number_of(root: Path, database: str, name: str) -> int:
    """The number of a user (`passwd`) or group (`group`) in a node's own files."""
    if name.isdigit():
        return int(name)
    for line in inside(root, f"/etc/{database}").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    raise LabError(f"the node has no {name!r} in /etc/{database}")


def home_of(root: Path, user: str) -> tuple[int, str]:
    """Number and home folder of a user of the node."""
    for line in inside(root, "/etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return int(fields[2]), fields[5]
    raise LabError(f"the node has no user {user!r}")


def write(root: Path, name: str, text: str, mode: int, owner: str) -> None:
    """Write a file of the node, its folders made, never readable by more than `mode` says."""
    path = inside(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    user, _, group = owner.partition(":")
    aside = path.with_name(f".{path.name}.lab")
    aside.touch(mode=0o600)
    aside.write_text(text)
    os.chown(aside, number_of(root, "passwd", user), number_of(root, "group", group or user))
    aside.chmod(mode)
    aside.replace(path)
