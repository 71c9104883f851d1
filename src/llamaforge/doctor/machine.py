"""The one way in which checks touch a machine: files, commands, sockets, clock; tests have a fake.

Nothing here can hang the program. What might (a folder on a dead file server, a name server that
is silent) is done by a child process, which is killed when its time is up and left behind if even
that does not end it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from llamaforge.doctor.contact import Answer, Contact, ask, connect

SECONDS = 5.0
"""How long a command may take unless told."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MISSING = 127
"""Exit code of a command that is not installed, as shells report it."""


class CantLook(Exception):
    """A check could not see what it has to see; the message says why and what would help."""


class Hung(Exception):
    """A path did not answer in time: its file system hangs."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str = ""
    err: str = ""
    timed_out: bool = False


class Status(NamedTuple):
    """What a path is, links followed."""

    kind: str
    """As coreutils' stat calls it: `regular file`, `directory`, …"""
    mode: int
    user: str
    group: str
    size: int


class Space(NamedTuple):
    """Room in the file system of a path, in bytes."""

    free: int
    total: int
    free_files: int
    files: int


class Machine:
    """This machine.

    Args:
        root: where its files begin; a test has a folder of its own.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.uid = os.getuid()

    # ── files of the kernel and of /etc: they answer at once ──────────────────────────────────

    def path(self, name: str) -> Path:
        """Where an absolute path of the machine is."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str | None:
        """The text of a local file; None where there is none.

        Raises:
            CantLook: it may not be read.
        """
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except PermissionError as why:
            raise CantLook(f"{name} can only be read by root") from why
        except OSError:
            return None

    def has(self, name: str) -> bool:
        """Whether a local path is there."""
        return os.path.lexists(self.path(name))

    def listed(self, pattern: str) -> list[str]:
        """Local paths that match a pattern such as `/sys/class/net/*`, sorted."""
        found = sorted(self.root.glob(pattern.lstrip("/")))
        return [f"/{path.relative_to(self.root)}" for path in found]

    # ── children: killed when their time is up ────────────────────────────────────────────────

    def run(self, *command: str, seconds: float = SECONDS, text: str = "") -> Done:
        """Runs a command.

        Args:
            command: program and arguments.
            seconds: after which it is killed.
            text: its standard input.
        """
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/")},
                text=True,
                errors="replace",
                start_new_session=True,
                cwd="/",
            )
        except OSError as why:
            return Done(MISSING, "", f"{command[0]}: {why.strerror}")
        try:
            out, err = child.communicate(text, seconds)
        except subprocess.TimeoutExpired:
            _abandon(child)
            return Done(-signal.SIGKILL, "", f"{shlex.join(command)} did not end", timed_out=True)
        return Done(child.returncode, out, err)

    def need(self, *command: str, seconds: float = SECONDS) -> str:
        """Output of a command that has to work.

        Raises:
            CantLook: it is not installed, failed, or did not end.
        """
        done = self.run(*command, seconds=seconds)
        if done.code == 0:
            return done.out
        if done.code == MISSING:
            raise CantLook(f"{command[0]} is not installed")
        said = (done.err.strip() or done.out.strip() or f"exit code {done.code}").splitlines()[-1]
        as_root = "" if self.uid == 0 else "; root may see more: sudo llamaforge doctor"
        raise CantLook(f"{shlex.join(command)}: {said}{as_root}")

    def run_as(self, user: str, *command: str, seconds: float = SECONDS) -> Done:
        """Runs a command as another user, the way the service would.

        Raises:
            CantLook: this process may not become that user.
        """
        if user in ("", "root") and self.uid == 0:
            return self.run(*command, seconds=seconds)
        if self.uid == 0:
            return self.run("runuser", "-u", user, "--", *command, seconds=seconds)
        if user in ("", self.user_name()):
            return self.run(*command, seconds=seconds)
        raise CantLook(f"only root can look as the user {user}: sudo llamaforge doctor")

    def user_name(self) -> str:
        """Who runs this program."""
        return self.run("id", "-un").out.strip()

    def status(self, name: str, seconds: float = 3.0) -> Status | None:
        """What a path is that may stand on any file system; None where there is nothing.

        Raises:
            Hung: it does not answer.
            CantLook: it may not be seen.
        """
        done = self.run("stat", "-L", "-c", "%F|%a|%U|%G|%s", "--", name, seconds=seconds)
        if done.timed_out:
            raise Hung(name)
        if done.code:
            if "Permission denied" in done.err:
                raise CantLook(f"{name} can only be seen by root: sudo llamaforge doctor")
            return None
        kind, mode, user, group, size = done.out.strip().split("|")
        return Status(kind, int(mode, 8), user, group, int(size))

    def space(self, name: str, seconds: float = 3.0) -> Space | None:
        """Room in the file system of a path; None where there is no such path.

        Raises:
            Hung: it does not answer.
        """
        done = self.run("stat", "-f", "-c", "%S %a %b %d %c", "--", name, seconds=seconds)
        if done.timed_out:
            raise Hung(name)
        if done.code:
            return None
        block, free, total, free_files, files = (int(word) for word in done.out.split())
        return Space(free * block, total * block, free_files, files)

    def addresses(self, host: str, seconds: float = 4.0) -> list[str]:
        """The addresses of a host name, IPv4 first; empty where nobody knows it."""
        found = []
        for family in ("ahostsv4", "ahostsv6"):
            done = self.run("getent", family, host, seconds=seconds)
            found += [line.split()[0] for line in done.out.splitlines() if line.strip()]
            if done.timed_out:
                break
        kept = [address for address in found if not address.startswith("::ffff:")]
        return list(dict.fromkeys(kept))

    # ── others ────────────────────────────────────────────────────────────────────────────────

    def connect(self, address: str, port: int, seconds: float = 4.0) -> Contact:
        """What happens when a TCP connection to an address is opened."""
        return connect(address, port, seconds)

    def ask(
        self,
        address: str,
        port: int,
        path: str,
        *,
        padding: int = 0,
        seconds: float = 4.0,
        tls: bool = False,
    ) -> Answer | None:
        """The answer to an HTTP GET; None where none came.

        Args:
            address: an IP address.
            port: a TCP port.
            path: such as `/health`.
            padding: makes the whole request this many bytes long, to try large packets.
            seconds: to wait.
            tls: whether that port speaks TLS, as a coordinator's does.
        """
        return ask(address, port, path, padding=padding, seconds=seconds, tls=tls)

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def tick(self) -> float:
        """A clock that never goes back, in seconds."""
        return time.monotonic()


def _abandon(child: subprocess.Popen[str]) -> None:
    """Kills a child and its own; one that the kernel does not let go is left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(0.5)
