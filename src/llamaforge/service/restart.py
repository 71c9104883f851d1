"""Starts the service, or restarts it after a change, without costing a running job its promise.

A restart costs a fleet's job one generation. Two things are worth waiting for: a job of the
classic way, which a restart would end, and another torch, whose kernels may round differently, so
that the job's numbers would not be the same any more. Then the worker is asked to restart when it
is idle: it looks for the file `restart-when-idle` in its runtime folder.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec

from llamaforge.errors import LlamaForgeError
from llamaforge.service.machine import Machine
from llamaforge.service.places import Places
from llamaforge.systemd.unit import RESTART_WISH

WISH = f"/run/llamaforge/{RESTART_WISH}"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What the service does at the moment."""

    active: bool
    same_program: bool = True
    """It runs the version that `current` names."""
    same_torch: bool = True
    classic_job: bool = False
    """A torchrun agent works under it."""


class Turn(Enum):
    """What is done with the service."""

    NOTHING = "nothing"
    START = "start"
    RESTART = "restart"
    WHEN_IDLE = "when idle"


def decide(running: Running, *, changed: bool, now: bool) -> tuple[Turn, str]:
    """What to do, and a sentence about why.

    Args:
        running: from `look`.
        changed: whether the service's files are others than before.
        now: never wait.
    """
    if not running.active:
        return Turn.START, "the service starts"
    if not changed and running.same_program:
        return Turn.NOTHING, "the service runs, and nothing has changed for it"
    if now and not running.same_torch:
        return Turn.RESTART, (
            "the service restarts with another torch: a job that runs may not keep the same numbers"
        )
    if now or (running.same_torch and not running.classic_job):
        return Turn.RESTART, "the service restarts; a fleet's job goes on"
    why = "torch is another one" if not running.same_torch else "a torchrun job is under way"
    return Turn.WHEN_IDLE, f"{why}: the worker restarts when it is idle (--now does it at once)"


def look(machine: Machine, places: Places) -> Running:
    """What the service does, from systemd and /proc."""
    said = machine.ask(
        *places.manager, "show", places.kind.unit, "--property=ActiveState,MainPID"
    ).stdout
    state = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if state.get("ActiveState") not in ("active", "reloading") or state.get("MainPID") == "0":
        return Running(active=False)
    words = _command_line(machine, state["MainPID"])
    if not places.kind.runs_ranks:
        same = _environment_of(words) in (None, machine.at(places.program).resolve())
        return Running(active=True, same_program=same)
    running = _environment_of(words)
    wanted = machine.at(places.program).resolve()
    if running is None:
        return Running(active=True, classic_job=_agent(machine, state["MainPID"], words))
    return Running(
        active=True,
        same_program=running == wanted,
        same_torch=torch_in(running) == torch_in(wanted),
        classic_job=_agent(machine, state["MainPID"], words),
    )


def torch_in(environment: Path) -> str:
    """The version of torch in an environment, or in the libraries that it shares; "" for none."""
    for folder in (environment, environment / "libraries"):
        for found in folder.glob("lib/python3*/site-packages/torch-*.dist-info"):
            return found.name.removeprefix("torch-").removesuffix(".dist-info")
    return ""


def carry_out(turn: Turn, places: Places, machine: Machine) -> None:
    """Does it.

    Raises:
        LlamaForgeError: the service did not start.
    """
    manager = places.manager
    if turn is Turn.WHEN_IDLE:
        machine.write(_wish(places, machine), "", 0o644)
    elif turn is not Turn.NOTHING:
        verb = "start" if turn is Turn.START else "restart"
        unit = places.kind.unit
        done = machine.ask(*manager, verb, unit)
        if done.returncode != 0:
            journal = " ".join(("journalctl", *manager[1:], "-n 30", f"-u {unit}"))
            raise LlamaForgeError(
                f"everything is installed, but the service did not start: {done.stderr.strip()}",
                hint=f"look at its last lines: {journal}",
            )


def _wish(places: Places, machine: Machine) -> str:
    if not places.lingering:
        return WISH
    said = machine.ask("systemctl", "--user", "show-environment").stdout
    folders = [line[16:] for line in said.splitlines() if line.startswith("XDG_RUNTIME_DIR=")]
    return f"{folders[0] if folders else '/run'}/llamaforge/{RESTART_WISH}"


def _command_line(machine: Machine, pid: str) -> list[str]:
    text = machine.read(f"/proc/{pid}/cmdline") or ""
    return text.rstrip("\0").split("\0")


def _environment_of(words: list[str]) -> Path | None:
    """The environment whose interpreter a process runs: PREFIX/versions/NAME/bin/python3."""
    program = Path(words[0])
    return program.parents[1] if "versions" in program.parts and len(program.parts) > 3 else None


def _agent(machine: Machine, pid: str, words: list[str]) -> bool:
    """Whether this process, or a child of it, is a torchrun agent."""
    if "torch.distributed.run" in words:
        return True
    children = machine.read(f"/proc/{pid}/task/{pid}/children") or ""
    return any(
        "torch.distributed.run" in _command_line(machine, child) for child in children.split()
    )
