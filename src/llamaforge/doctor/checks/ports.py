"""LF202: nobody else sits on the worker's port, or on the port of torchrun's store."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, warning
from llamaforge.doctor.machine import CantLook, Machine
from llamaforge.doctor.subject import HEALTH, Subject
from llamaforge.wire.listener import who_listens

_PID = re.compile(r"\(pid (\d+)\)$")


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at who listens."""
    here = subject.master is not None and subject.is_here(subject.master.name)
    if subject.peer_port and not (here and subject.peer_port == subject.master_port):
        yield from _worker_port(machine, subject)
    if here:
        yield from _store_port(machine, subject)


def _worker_port(machine: Machine, subject: Subject) -> Iterator[Finding]:
    port = subject.peer_port
    name, pid = holder(machine, port)
    if not name or (pid and _is_service(machine, subject, pid)) or _is_store(machine, pid):
        return
    if not pid and subject.unit.active and _is_worker(machine, port):
        return
    seen = f"TCP port {port}, the worker's, is in use by {name}; the worker takes the next free one"
    yield warning(str(port), seen, *_stop(machine, pid))


def _store_port(machine: Machine, subject: Subject) -> Iterator[Finding]:
    port = subject.master_port
    name, pid = holder(machine, port)
    if name and not _is_store(machine, pid):
        seen = f"TCP port {port}, which torchrun's store needs on this host, is in use by {name}"
        yield error(str(port), seen, *_stop(machine, pid))


def holder(machine: Machine, port: int) -> tuple[str, int]:
    """Who listens on a port: what to call it and its process id (0 where root alone may know)."""
    said = who_listens(port, machine.path("/proc"))
    if found := _PID.search(said):
        return said, int(found[1])
    taken = machine.run("ss", "-Hltn", f"sport = :{port}").out.strip()
    return ("a process that only root can see" if taken else ""), 0


def _is_service(machine: Machine, subject: Subject, pid: int) -> bool:
    group = subject.unit["ControlGroup"]
    return pid == subject.unit.main_pid or bool(group and group in _read(machine, pid, "cgroup"))


def _is_worker(machine: Machine, port: int) -> bool:
    """Whether a worker answers there, for those who can't see whose process it is."""
    answer = machine.ask("127.0.0.1", port, HEALTH, seconds=2.0)
    return answer is not None and "connected" in answer.json()


def _is_store(machine: Machine, pid: int) -> bool:
    """Whether a process is torchrun itself."""
    said = _read(machine, pid, "cmdline") if pid else ""
    return "torch.distributed" in said or "torchrun" in said


def _stop(machine: Machine, pid: int) -> tuple[str, ...]:
    if not pid:
        return ("sudo llamaforge doctor --only LF202",)
    unit = re.findall(r"/([^/\n]+\.service)\s*$", _read(machine, pid, "cgroup"), re.MULTILINE)
    if unit and not unit[-1].startswith("user@"):
        return (f"sudo systemctl stop {unit[-1]}",)
    return (f"sudo kill {pid}",)


def _read(machine: Machine, pid: int, name: str) -> str:
    try:
        return (machine.read(f"/proc/{pid}/{name}") or "").replace("\0", " ")
    except CantLook:
        return ""


CHECK = Check(
    code="LF202",
    title="Ports",
    sees="another process listens on the worker's port, or on MASTER_PORT on the host of "
    "MASTER_ADDR; names it",
    fix="stops that process",
    look=look,
)
