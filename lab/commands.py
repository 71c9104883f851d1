"""How the lab runs the box's own tools: loudly when they fail, without the caller's settings."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

# A person's PATH, proxies and pip settings are no business of a strange machine.
CLEAN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


def call(
    *command: str | Path, check: bool = True, input: str | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a tool of the box to its end; with `check`, a failure is a LabError with its words."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            check=False,
            env=CLEAN,
            input=input,
            text=True,
            capture_output=True,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise LabError(f"{words[0]} is missing; see `python -m lab status`") from None
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(words)}` failed with status {done.returncode}: {said}")
    return done


def environment(more: Mapping[str, str] | None = None) -> list[str]:
    """The clean environment and more, as `NAME=value` words for env(1)."""
    return [f"{name}={value}" for name, value in {**CLEAN, **(more or {})}.items()]


def joining(folders: Sequence[Path | str]) -> list[str]:
    """The beginning of a command that starts the rest of it inside cgroups.

    A process moves itself before it becomes the command, so that no child escapes.
    """
    script = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1"; shift; n=$((n-1)); done'
    files = [f"{folder}/cgroup.procs" for folder in folders]
    return ["sh", "-c", f'{script}; exec "$@"', "join", str(len(files)), *files]


def entering(init: int) -> list[str]:
    """The beginning of a command that runs the rest of it in a node, by its first process.

    nsenter's own waiting must not be used: when a node shuts down, systemd stops all processes for
    a moment, nsenter then stops itself, too, and nobody reaps its child, for which systemd waits.
    A signal to both is the command's to handle; its exit status is what counts.

    Capabilities that the node has not are given up: with ours, `date -s` would set the box's clock.
    """
    wait = 'trap : HUP INT TERM; "$@"; exit $?'
    enter = ["nsenter", "-t", str(init), "-a", "--no-fork", "--"]
    return [*enter, "setpriv", *_bounds(init), "--", "sh", "-c", wait, "enter"]


def _bounds(init: int) -> list[str]:
    """Options of setpriv(1) that leave the capabilities which a process can have, and no other."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    status = Path(f"/proc/{init}/status").read_text()
    kept = int(status.split("CapBnd:")[1].split()[0], 16)
    given_up = ",".join(f"-cap_{number}" for number in range(last + 1) if not kept >> number & 1)
    return [f"--bounding-set={given_up}", f"--inh-caps={given_up}"] if given_up else []
