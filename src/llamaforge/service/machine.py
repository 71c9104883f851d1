"""The machine that is installed on, as a seam: its files below a root folder, and its commands.

Tests put the root into a temporary folder and answer the commands.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import tempfile
from pathlib import Path

from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.service import gates
from llamaforge.service.kind import WORKER
from llamaforge.service.plan import Command, Facts
from llamaforge.spec import mounts
from llamaforge.spec.mounts import is_remote

DEVICE_GROUPS = ("video", "render")
"""They own the device files of GPUs on today's distributions."""


class Machine:
    """Files and commands of a machine.

    Args:
        root: what counts as `/`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        """Where a path of the machine is for us."""
        return self.root / path.lstrip("/")

    def facts(self, user: str, token: str, group: str = "", account: str = WORKER.user) -> Facts:
        """Looks at what a plan must know.

        Args:
            user: whom the service shall run as; "" for its own user.
            token: path of the token's file.
            group: the group that was asked for; "" for none.
            account: the service's own user.

        Raises:
            UserError: there is no systemd.
        """
        person = _account(os.geteuid())
        return Facts(
            systemd=self._systemd_version(),
            running=self.at("/run/systemd/system").is_dir(),
            device_groups=tuple(name for name in DEVICE_GROUPS if _has_group(name)),
            user_group="" if user in ("", account) else _primary_group(user),
            user_is_root=_is_root(user),
            group_exists=not group or _has_group(group),
            cpus=(self.read("/sys/devices/system/cpu/possible") or "").strip(),
            numa_nodes=(self.read("/sys/devices/system/node/possible") or "").strip(),
            service_user=_user_exists(account),
            has_token=self.at(token).is_file(),
            remote=self._remote(),
            person=person,
            lingers=self.at(f"/var/lib/systemd/linger/{person}").exists(),
        )

    def read(self, path: str) -> str | None:
        """A file's text; None when it is not there."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return None

    def make_folders(self, folder: str, mode: int = 0o755) -> list[str]:
        """Makes a folder and its missing parents; returns those it made, parents first."""
        made: list[str] = []
        missing = [folder]
        while not self.at(missing[-1]).is_dir():
            missing.append(str(Path(missing[-1]).parent))
        for path in reversed(missing[:-1]):
            self.at(path).mkdir()
            self.at(path).chmod(mode)
            made.append(path)
        return made

    def write(self, path: str, content: str, mode: int) -> None:
        """Writes a whole file or nothing, durably."""
        target = self.at(path)
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            Path(aside).replace(target)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def remove(self, path: str) -> bool:
        """Removes a file; says whether it was there."""
        try:
            self.at(path).unlink()
        except FileNotFoundError:
            return False
        return True

    def remove_folder(self, path: str) -> bool:
        """Removes an empty folder; says whether it did."""
        try:
            self.at(path).rmdir()
        except OSError:
            return False
        return True

    def run(self, command: Command) -> list[str]:
        """Runs a command; returns what to tell the person, if anything.

        Raises:
            LlamaForgeError: it failed; holds the command and what it said.
        """
        done = self.ask(*command.words)
        if done.returncode == 0:
            return []
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        if command.or_else:
            return [f"{command.or_else} ({said})"]
        raise LlamaForgeError(f"`{' '.join(command.words)}` failed: {said}")

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command whose failure is an answer; one that does not exist ends with 127."""
        try:
            return subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: not found")

    def _remote(self) -> tuple[str, ...]:
        mounted = [m for m in mounts.read(self.read(mounts.TABLE) or "") if is_remote(m.kind)]
        planned = mounts.fstab(self.read("/etc/fstab") or "")
        return tuple(sorted({mount.point for mount in (*mounted, *planned)}))

    def _systemd_version(self) -> int:
        version = gates.version_in(self.ask("systemctl", "--version").stdout)
        if version is None:
            raise UserError(
                "this machine has no systemd",
                hint="run it by hand: llamaforge worker run, or llamaforge coordinator run",
            )
        return version


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _user_exists(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def _account(number: int) -> str:
    """An account's name; its number when it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _primary_group(user: str) -> str:
    """The name of an account's group; "" when there is no such account."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return ""


def _is_root(user: str) -> bool:
    try:
        return pwd.getpwnam(user).pw_uid == 0
    except KeyError:
        return False


def _has_group(name: str) -> bool:
    """Asks for this one: a directory service may not list all of its groups."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
