"""LF103: the Python that the service starts is there and works.

A virtual environment breaks when the distribution takes away the Python that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

_ASK = "import sys; print('%d.%d' % sys.version_info[:2])"
OLDEST = (3, 10)


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Starts the service's Python and asks for its version."""
    python = subject.unit.python
    if not python:
        return
    if not python.startswith("/"):
        yield error(
            python,
            f"ExecStart of {subject.unit.name} names {python} without its folder",
            subject.unit.systemctl("edit"),
        )
        return
    done = machine.run(python, "-I", "-c", _ASK, seconds=10)
    if done.code:
        yield error(python, _why(machine, python, done.err), *mend(subject))
        return
    version = tuple(int(part) for part in done.out.strip().split("."))
    if version < OLDEST:
        yield error(
            python, f"{python} is Python {done.out.strip()}; 3.10 is needed", *mend(subject)
        )


def _why(machine: Machine, python: str, said: str) -> str:
    path = machine.path(python)
    if path.is_symlink() and not path.exists():
        return f"{python} is a link to {path.readlink()}, which is gone"
    if not path.exists():
        return f"{python}, which the service starts, does not exist"
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return f"{python} does not start: {last[0]}"


def mend(subject: Subject) -> tuple[str, ...]:
    """The commands that build the environment anew."""
    return ("sudo ./install.sh  # in a checkout of LlamaForge", subject.unit.systemctl("restart"))


CHECK = Check(
    code="LF103",
    title="Python",
    sees="the Python of ExecStart is missing, a link to one that is gone, too old, or broken",
    fix="builds the environment anew",
    look=look,
)
