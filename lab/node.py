"""A node of the lab: its verbs, from boot to power cut."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import tree
from lab.cgroups import Cgroups
from lab.commands import CLEAN, entering, environment, joining
from lab.disk import Disk
from lab.errors import LabError
from lab.machine import Machine, until
from lab.network import Link

if TYPE_CHECKING:
    from lab.lab import Lab

Done = subprocess.CompletedProcess[str]


class Child(subprocess.Popen[str]):
    """A process in a node. Signals reach the command inside, not only its parent on the host."""

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command and everything that it has in its process group."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sig)


class Node:
    """One machine of a lab. Made by `Lab.add`; boots with `boot`."""

    def __init__(self, lab: Lab, name: str, address: str, machine: Machine, disk: Disk) -> None:
        self.lab = lab
        self.name = name
        self.address = address
        self.machine = machine
        self.disk = disk
        self.link = Link(machine.link)
        self._cores: float | None = None
        self._memory: int | str | None = None
        self._rate: tuple[str | None, str | None] = (None, None)
        self._unplugged = False
        self._children: list[Child] = []

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.address} {'on' if self.alive else 'off'}>"

    # ── power ─────────────────────────────────────────────────────────────────────────────────

    @property
    def pid(self) -> int:
        """The host's number of the node's first process. Raises LabError when it is off."""
        if not self.alive or self.machine.init is None:
            raise LabError(f"{self.name} is off; boot it first")
        return self.machine.init

    @property
    def alive(self) -> bool:
        """Whether it is powered on."""
        return self.machine.on

    @property
    def _groups(self) -> Cgroups:
        return self.machine.groups

    def boot(self, seconds: float = 60) -> float:
        """Power on and wait until systemd has started everything and the network is up.

        Returns the seconds that it took. Raises LabError with the console's last lines.
        """
        begun = time.monotonic()
        self.start()
        self.wait_booted(seconds)
        return time.monotonic() - begun

    def start(self) -> None:
        """Power on without waiting, so that several nodes can boot at the same time."""
        self.machine.start()
        self._apply()

    def wait_booted(self, seconds: float = 60) -> None:
        """Wait for a started node, as `boot` does."""
        until(
            self._booted,
            seconds,
            lambda: f"{self.name} has not booted in {seconds:.0f} s: {self._state()}",
            pause=0.1,
        )

    def _booted(self) -> int | None:
        if not self.alive:
            raise LabError(f"{self.name} ended while booting: {self.machine.said()}")
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state not in ("running", "degraded"):
            return None
        addresses = self.run("ip", "-4", "-br", "address", "show", "host0", check=False).stdout
        return 1 if self.address in addresses else None

    def _state(self) -> str:
        jobs = self.run("systemctl", "list-jobs", "--no-pager", check=False).stdout
        failed = self.run("systemctl", "--failed", "--no-pager", check=False).stdout
        return f"{jobs}\n{failed}\n{self.machine.said()}"

    def reboot(self, seconds: float = 60) -> float:
        """Reboot from inside, as a person does; the seconds until it is usable again."""
        begun = time.monotonic()
        self.run("systemctl", "reboot", "--no-block", check=False)
        self.machine.wait_off(seconds)
        self.boot(seconds)
        return time.monotonic() - begun

    def shutdown(self, seconds: float = 90) -> None:
        """Power off from inside: services are stopped, the disk stays."""
        self.run("systemctl", "poweroff", "--no-block", check=False)
        self.machine.wait_off(seconds)

    def power_cut(self) -> None:
        """End everything in the node at once. Its disk stays, its memory and /run are gone."""
        self.machine.cut()

    def freeze(self) -> None:
        """Stop all of the node's processes at once; its connections stay open and silent."""
        self._groups.freeze(True)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        self._groups.freeze(False)

    # ── limits and the cable ──────────────────────────────────────────────────────────────────

    def throttle(self, cores: float | None) -> None:
        """Let the whole node use so many cores: 0.25 is a quarter of one. None lifts that."""
        self._cores = cores
        if self.alive:
            self._groups.set_cpu(cores)

    def limit_memory(self, size: int | str | None) -> None:
        """Let the whole node use so many bytes, or "2G". None lifts that."""
        self._memory = size
        if self.alive:
            self._groups.set_memory(size)

    def shape(self, rate: str | None, latency: str | None = None) -> None:
        """Limit the node's link to a rate of tc(8), both ways: "100mbit". None lifts that."""
        self._rate = (rate, latency)
        if self.alive:
            self.link.shape(self.pid, rate, latency)

    def unplug(self) -> None:
        """Pull the network cable: what is sent vanishes, no connection is reset."""
        self._unplugged = True
        if self.alive:
            self.link.plug(False)

    def replug(self) -> None:
        """Put the cable back."""
        self._unplugged = False
        if self.alive:
            self.link.plug(True)

    def _apply(self) -> None:
        """Limits belong to the machine, not to one boot of it."""
        if self._cores is not None:
            self._groups.set_cpu(self._cores)
        if self._memory is not None:
            self._groups.set_memory(self._memory)
        if self._rate != (None, None):
            self.link.shape(self.pid, *self._rate)
        if self._unplugged:
            self.link.plug(False)

    # ── commands ──────────────────────────────────────────────────────────────────────────────

    def _words(
        self, command: tuple[str, ...], user: str | None, env: Mapping[str, str] | None
    ) -> list[str]:
        given = dict(env or {})
        enter = entering(self.pid)
        number, home = tree.home_of(self._tree, user or "root")
        given = {"HOME": home, "USER": user or "root", "LOGNAME": user or "root", **given}
        if user:
            given = {"XDG_RUNTIME_DIR": f"/run/user/{number}", **given}
            enter += ["runuser", "-u", user, "--"]
        clean = ["env", "-i", *environment(given)]
        return [*joining(self._groups.joined_by_commands()), *enter, *clean, *command]

    def run(
        self,
        *command: str,
        check: bool = True,
        user: str | None = None,
        timeout: float = 60,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command inside the node, in a clean environment, as root or another user.

        Raises LabError with both outputs when `check` and it fails, or after `timeout` seconds.
        """
        child = self._popen(command, user, env, subprocess.PIPE if input is not None else None)
        try:
            out, err = child.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            text = f"{self.name}: `{shlex.join(command)}` ran past {timeout:.0f} s\n{out}{err}"
            raise LabError(text) from None
        except BaseException:
            child.kill()
            child.wait()
            raise
        if check and child.returncode != 0:
            text = f"{self.name}: `{shlex.join(command)}` failed with status {child.returncode}"
            raise LabError(f"{text}\n{out}{err}")
        return subprocess.CompletedProcess(list(command), child.returncode, out, err)

    def shell(self, script: str, **options: Any) -> Done:
        """Run lines of bash inside the node; options as for `run`."""
        return self.run("bash", "-c", script, **options)

    def spawn(
        self,
        *command: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        input: bool = False,
    ) -> Child:
        """Start a command inside the node and return at once; it ends with the lab at the latest.

        Its outputs are pipes; with `input`, so is its standard input.
        """
        child = self._popen(command, user, env, subprocess.PIPE if input else None)
        self._children.append(child)
        return child

    def _popen(
        self,
        command: tuple[str, ...],
        user: str | None,
        env: Mapping[str, str] | None,
        stdin: int | None,
    ) -> Child:
        return Child(
            self._words(command, user, env),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=CLEAN,
            start_new_session=True,
        )

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _tree(self) -> Path:
        return Path(f"/proc/{self.machine.init}/root") if self.alive else self.disk.root

    def path(self, name: str) -> Path:
        """The host's path of a file of the node: in its live tree, or on its disk while off."""
        return tree.inside(self._tree, name)

    def read(self, name: str) -> str:
        """The text of a file of the node."""
        return self.path(name).read_text()

    def write(self, name: str, text: str, mode: int = 0o644, owner: str = "root:root") -> None:
        """Write a file of the node, whole or not at all; its folders are made."""
        tree.write(self._tree, name, text, mode, owner)

    # ── watching ──────────────────────────────────────────────────────────────────────────────

    def journal(self, unit: str | None = None, *arguments: str) -> list[dict[str, Any]]:
        """Journal entries, oldest first, as `journalctl -o json` has them; of one unit if named."""
        of = ["-u", unit] if unit else []
        done = self.run("journalctl", "--no-pager", "-o", "json", *of, *arguments)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def wait_for(
        self,
        condition: Callable[[], Any],
        seconds: float = 20,
        what: str = "the condition",
        unit: str = "llamaforge-worker",
    ) -> Any:
        """Ask until the answer is true, and return it.

        A command that fails meanwhile is a no. Raises LabError with `what`, the last failure and
        the unit's last journal lines.
        """
        deadline = time.monotonic() + seconds
        failure = ""
        while True:
            try:
                if answer := condition():
                    return answer
                failure = ""
            except LabError as error:
                failure = f"\nlast answer: {error}"
            if time.monotonic() > deadline:
                raise LabError(
                    f"{self.name}: {what}: not within {seconds:g} s{failure}\n{self._last(unit)}"
                )
            time.sleep(0.1)

    def _last(self, unit: str, lines: int = 30) -> str:
        if not self.alive:
            return f"it is off; its console: {self.machine.said()}"
        with contextlib.suppress(LabError):
            asked = [
                "journalctl",
                "--no-pager",
                "-u",
                unit,
                "-n",
                str(lines),
                "-o",
                "short-precise",
            ]
            return self.run(*asked, check=False, timeout=20).stdout
        return "its journal can't be read"

    def end_children(self) -> None:
        """End what `spawn` started."""
        for child in self._children:
            child.kill()
            child.communicate()
        self._children.clear()
