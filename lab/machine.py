"""Starting and ending the systemd-nspawn process that is a node's hardware."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lab.cgroups import Cgroups
from lab.commands import CLEAN, call, joining
from lab.errors import LabError
from lab.ledger import Ledger

CHECKOUT = Path(__file__).resolve().parents[1]
MOUNTED_CHECKOUT = "/srv/llamaforge"

# What nspawn ends with when the node asked for a reboot.
_REBOOT = 133

_NSPAWN_RUN = Path("/run/systemd/nspawn")


class Machine:
    """One node's nspawn, by a machine name of its own on this box (12 characters at most)."""

    def __init__(
        self, name: str, hostname: str, root: Path, bridge: str, groups: Cgroups, ledger: Ledger
    ) -> None:
        self.name = name
        self.hostname = hostname
        self.link = f"vb-{name}"
        self.groups = groups
        self.console = root.with_name("console.log")
        self._root = root
        self._bridge = bridge
        self._ledger = ledger
        self._process: subprocess.Popen[bytes] | None = None
        self.init: int | None = None

    def note(self) -> None:
        """Write down all that nspawn will leave behind if it is killed."""
        for folder in (_NSPAWN_RUN, _NSPAWN_RUN / "locks", _NSPAWN_RUN / "propagate"):
            if not folder.exists():
                self._ledger.note("empty-folder", folder)
        for path in self._leftovers():
            self._ledger.note("folder" if "propagate" in str(path) else "file", path)
        self._ledger.note("link", self.link)
        for folder in self.groups.folders:
            self._ledger.note("cgroup", folder)

    def _leftovers(self) -> list[Path]:
        seen = self._root.stat()
        # nspawn's own lock on the folder that it boots (systemd: image_path_lock).
        inode = f"inode-{seen.st_dev:x}:{seen.st_ino:x}"
        return [_NSPAWN_RUN / "propagate" / self.name, _NSPAWN_RUN / "locks" / inode]

    @property
    def on(self) -> bool:
        """Whether nspawn runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Power on. Returns when the node has its first process, long before it is usable."""
        if self.on:
            raise LabError(f"{self.hostname} runs already")
        self._sweep()
        self.groups.make()
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                [*joining(self.groups.folders), *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # /tmp is on the disk here, as it is on most machines.
                env={**CLEAN, "SYSTEMD_NSPAWN_TMPFS_TMP": "0"},
                start_new_session=True,
            )
        self.init = until(
            self._find_init, 20, lambda: f"{self.hostname} does not start: {self.said()}"
        )

    def _command(self) -> list[str]:
        hidden = [name for name in (".venv", ".lab", "runs") if (CHECKOUT / name).is_dir()]
        first = f"{self.groups.unlocking()}exec /lib/systemd/systemd"
        return [
            *("systemd-nspawn", "--quiet", "--settings=no", "-D", str(self._root)),
            *("--register=no", "--keep-unit", "-M", self.name, f"--hostname={self.hostname}"),
            *(f"--network-bridge={self._bridge}", "--link-journal=no", "--kill-signal=SIGRTMIN+3"),
            *("--resolv-conf=off", "--timezone=off", "--console=pipe"),
            # nspawn forbids these; on a real machine any process may confine itself.
            "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
            f"--bind-ro={CHECKOUT}:{MOUNTED_CHECKOUT}",
            *(f"--tmpfs={MOUNTED_CHECKOUT}/{name}" for name in hidden),
            *(["--bind=/dev/fuse"] if Path("/dev/fuse").exists() else []),
            *("/bin/sh", "-c", first),
        ]

    def _find_init(self) -> int | None:
        process = self._process
        assert process is not None
        if process.poll() is not None:
            raise LabError(f"{self.hostname} does not start: {self.said()}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
            except FileNotFoundError:
                continue
        return None

    def said(self, lines: int = 12) -> str:
        """The last lines of the node's console."""
        try:
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def wait_off(self, seconds: float) -> None:
        """Wait until the node has powered itself off, or ended for a reboot."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(
                f"{self.hostname} does not end in {seconds:.0f} s: {self.said()}"
            ) from None
        self._off()

    def wants_reboot(self) -> bool:
        """Whether the node has ended for a reboot; asked once, then it counts as off."""
        process = self._process
        if process is None or process.poll() is None:
            return False
        self._off()
        return process.returncode == _REBOOT

    def cut(self) -> None:
        """Power off at once: every process killed, nothing asked."""
        if self._process is not None:
            self._process.kill()
            self.groups.kill()
            self._process.wait(10)
        self._off()

    def _off(self) -> None:
        self.groups.kill()
        self._process = None
        self.init = None
        self._sweep()

    def _sweep(self) -> None:
        """Remove what a killed nspawn leaves, without which it does not start again."""
        propagate, lock = self._leftovers()
        if propagate.exists():
            propagate.rmdir()
        lock.unlink(missing_ok=True)
        if Path("/sys/class/net", self.link).exists():
            call("ip", "link", "delete", self.link, check=False)


def until(
    ask: Callable[[], int | None], seconds: float, complaint: Callable[[], str], pause: float = 0.02
) -> int:
    """The first answer that is not None. Raises LabError with the complaint after `seconds`."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise LabError(complaint())
        time.sleep(pause)
    return answer
