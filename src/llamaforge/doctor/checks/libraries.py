"""LF104: torch and every library that LlamaForge needs can be imported by the service's Python.

A child process imports them, as the service's user: what breaks there breaks nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.checks.python import mend
from llamaforge.doctor.finding import Finding, error, note
from llamaforge.doctor.machine import CantLook, Machine
from llamaforge.doctor.subject import Subject

SECONDS = 90.0
PROBE = """
import importlib, importlib.metadata as metadata, json, re, sys
modules = {"pyyaml": "yaml"}
broken, versions = {}, {}
try:
    needs = [n for n in metadata.requires("llamaforge") or () if "extra ==" not in n]
except metadata.PackageNotFoundError:
    needs = ["llamaforge", "torch"]
    broken["llamaforge"] = "it is not installed"
if sys.version_info >= (3, 11):
    needs = [n for n in needs if not n.startswith("tomli")]
for need in needs:
    name = re.match(r"[A-Za-z0-9_.-]+", need)[0].lower().replace("-", "_")
    module = modules.get(name, name)
    try:
        found = importlib.import_module(module)
        versions[name] = str(getattr(found, "__version__", ""))
        if name == "torch":
            assert float((found.ones(8, 8) @ found.ones(8, 8)).sum()) == 512.0
    except BaseException as why:
        text = str(why).strip() or "no reason given"
        broken[name] = "%s: %s" % (type(why).__name__, text.splitlines()[0])
print("\\n" + json.dumps({"broken": broken, "versions": versions}))
"""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Imports everything in a child."""
    python = subject.unit.python
    if not python.startswith("/") or machine.run(python, "-I", "-c", "", seconds=10).code:
        return  # LF103 says so
    try:
        done = machine.run_as(subject.unit.user, python, "-I", "-c", PROBE, seconds=SECONDS)
    except CantLook:
        done = machine.run(python, "-I", "-c", PROBE, seconds=SECONDS)
    if done.timed_out:
        seen = f"{python} did not import its libraries within {SECONDS:.0f} s; the disk may be slow"
        yield note(python, seen, "llamaforge doctor --only LF104")
        return
    try:
        broken = json.loads(done.out.strip().splitlines()[-1])["broken"]
    except (IndexError, ValueError, KeyError):
        yield error("torch", _crash(python, done.code, done.err), *mend(subject))
        return
    for name, why in broken.items():
        yield error(name, f"{python} can't import {name}: {why}", *mend(subject))


def _crash(python: str, code: int, said: str) -> str:
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{python} {ended} while it imported its libraries: {last}"


CHECK = Check(
    code="LF104",
    title="Libraries",
    sees="torch or another library is missing from the service's environment or can't be imported",
    fix="builds the environment anew",
    look=look,
    seconds=SECONDS + 15,
)
