"""The fleet file: where a coordinator listens. It holds no secret.

The coordinator writes `fleet.json` into its state folder and holds a lock on
`fleet.lock` beside it for as long as it lives. A file whose lock is free is stale: its
coordinator was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llamaforge.errors import FleetError, UserError
from llamaforge.paths import state_dir, writing_state

NAME = "fleet.json"
LONGEST = 65536
"""Bytes that are read of a fleet file; one has a few hundred."""
SERVICE = Path("/run/llamaforge-coordinator") / NAME
"""The fleet file of this machine's coordinator service; its group can read it."""


class FleetFile(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a coordinator."""

    host: str
    port: int
    """The control port: TLS, for nodes and remote people."""
    pid: int = 0
    """Process id of the coordinator; 0 in the file of a remote fleet."""
    uid: int = -1
    """User id of the coordinator; -1 where it is not known."""
    socket: str = ""
    """Path of its unix socket; empty in the file of a remote fleet."""
    fleet: str = ""
    """The fleet's id, the same over all restarts of its coordinator."""
    authority: str = ""
    """Fingerprint of the fleet's authority: SHA-256 of its certificate, in hex."""
    identity: str = ""
    """Folder with a person's key and certificate, in the file of a remote fleet; else empty."""


def default_path() -> Path:
    """Where this user's fleet file is."""
    return state_dir() / NAME


def remote_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `llamaforge login` notes the fleet of another machine."""
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "llamaforge" / NAME


def search(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> FleetFile | None:
    """The fleet that a command is meant for, or None where there is none.

    The first of: the file that is named, the one in LLAMAFORGE_FLEET, this user's own fleet that
    runs, this machine's service (where this user may use it), and the fleet this user has logged
    in to.

    Raises:
        FleetError: a file can't be read or understood, or no fleet runs where one was named: a job
            must not go to another fleet than the one that was meant.
    """
    named = environ.get("LLAMAFORGE_FLEET")
    if path is not None:
        return _named(path, "--fleet")
    if named:
        return _named(Path(named), "LLAMAFORGE_FLEET")
    for place in (default_path(), SERVICE, remote_path(environ)):
        try:
            found = find(place)
        except PermissionError:
            continue  # the service's, and this user is not in its group
        if found is not None:
            return found
    return None


def _named(path: Path, source: str) -> FleetFile:
    """The fleet of a file that somebody named.

    Raises:
        UserError: there is no such file.
        FleetError: its coordinator has ended.
    """
    found = find(path)
    if found is None:
        why = "its coordinator has ended" if path.exists() else "there is no such file"
        kind = FleetError if path.exists() else UserError
        raise kind(
            f"{source} is {str(path)!r}: {why}",
            hint="it names a fleet file, not an address; without it this machine's fleet is used\n"
            "a fleet on another machine: llamaforge login HOST:PORT",
        )
    return found


def find(path: Path | None = None) -> FleetFile | None:
    """The fleet that runs now, or None where there is none or only its stale file.

    A file without a lock beside it was copied from another machine and counts as running.

    Args:
        path: the fleet file; by default this user's.

    Raises:
        FleetError: the file can't be read or understood.
    """
    path = path or default_path()
    if path.is_dir():
        raise FleetError(f"{path} is a folder, not a fleet file", hint=f"try {path / NAME}")
    lock = lock_of(path)
    stale = lock.path.exists() and not lock.taken()
    return read(path) if path.exists() and not stale else None


def lock_of(path: Path) -> Lock:
    """The lock that the coordinator of a fleet file holds."""
    return Lock(path.with_suffix(".lock"))


def read(path: Path) -> FleetFile:
    """Reads a fleet file.

    Raises:
        FleetError: it is missing or can't be understood.
    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(LONGEST), type=FleetFile)
    except (OSError, msgspec.MsgspecError) as why:
        raise FleetError(
            f"the fleet file {path} can't be read: {why}", hint="start a fleet: llamaforge up"
        ) from why


def write(path: Path, fleet: FleetFile, *, mode: int = 0o600) -> None:
    """Writes a fleet file; readers see the old or the new one.

    Args:
        path: the file.
        fleet: what it says.
        mode: who may read it; a service's group may.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(msgspec.json.encode(fleet))
    Path(name).rename(path)


class Lock:
    """A file lock that the kernel frees when its holder dies, however that happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def take(self, *, patience: float = 1.0) -> bool:
        """Takes the lock for this process.

        Args:
            patience: seconds to try; somebody who only asks `taken` has it for an instant.

        Returns:
            False when somebody else keeps it.

        Raises:
            UserError: its folder can't be written.
        """
        until = time.monotonic() + patience
        while not self._try():
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        return True

    def _try(self, kind: int = fcntl.LOCK_EX) -> bool:
        if kind == fcntl.LOCK_SH:  # members of the service's group may only look
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            with writing_state(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
                if os.fstat(handle).st_uid == os.geteuid():
                    os.fchmod(handle, 0o640)  # a service's UMask= would close it to its group
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError as why:
            os.close(handle)
            if why.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        self._handle = handle
        return True

    def free(self) -> None:
        """Gives the lock back; harmless when it isn't held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def taken(self) -> bool:
        """Whether another process (or another `Lock`) holds it now.

        Asks with a shared lock, so that two who ask at once don't take each other for the holder.
        """
        mine = Lock(self.path)
        try:
            got = mine._try(fcntl.LOCK_SH)
        except FileNotFoundError:
            return False
        mine.free()
        return not got
