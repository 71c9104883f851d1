"""LF201: the service is installed, enabled, and runs; if not, what its journal says last."""

from __future__ import annotations

import json
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note, warning
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject
from llamaforge.doctor.unit import Unit

MANY_RESTARTS = 5
STATUSES = {
    "78": "it says that a restart can't help: its settings are wrong (the worker's: LF111)",
    "200": "WorkingDirectory= can't be entered (LF101)",
    "203": "the program of ExecStart can't be started (LF103, LF107)",
    "216": "the group of Group= or SupplementaryGroups= does not exist",
    "217": "the user of User= does not exist",
    "226": "a folder of ReadWritePaths= or the like does not exist",
    "233": "the runtime folder can't be made",
    "238": "the state folder can't be made",
    "239": "the cache folder can't be made",
    "243": "a credential of LoadCredential= can't be read",
}
"""Exit statuses that systemd itself gives (systemd.exec(5)), and our own 78."""


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at the unit's state."""
    unit = subject.unit
    if not unit.properties:
        yield note(unit.name, "systemd does not answer here; looked at this shell's environment")
    elif not unit.installed:
        seen = f"{unit.name} is not installed; looked at this shell's environment instead"
        yield note(unit.name, seen, "sudo llamaforge worker install")
    elif unit["LoadState"] == "masked" or unit["UnitFileState"] == "masked":
        yield error(unit.name, f"{unit.name} is masked", unit.systemctl("unmask"))
    elif unit["LoadState"] != "loaded":
        seen = f"{unit.name} can't be loaded ({unit['LoadState']})"
        yield error(unit.name, seen, f"systemd-analyze verify {unit.name}")
    else:
        yield from loaded(machine, unit)


def loaded(machine: Machine, unit: Unit) -> Iterator[Finding]:
    """What is wrong with a service that is installed."""
    yield from _state(machine, unit)
    yield from _kept(unit)


def _state(machine: Machine, unit: Unit) -> Iterator[Finding]:
    state, sub = unit["ActiveState"], unit["SubState"]
    again = (unit.systemctl("reset-failed"), unit.systemctl("start"))
    if state == "failed":
        yield error(unit.name, f"{unit.name} has failed{_why(machine, unit)}", *again)
    elif sub == "auto-restart" or (state == "activating" and int(unit["NRestarts"] or 0) > 0):
        seen = (
            f"{unit.name} ends again and again ({unit['NRestarts']} restarts){_why(machine, unit)}"
        )
        yield error(unit.name, seen, unit.show_journal("-n", "50"))
    elif state == "activating":
        said = f": {unit['StatusText']}" if unit["StatusText"] else ""
        yield note(unit.name, f"{unit.name} is starting{said}", unit.show_journal("-f"))
    elif state in ("inactive", "deactivating"):
        seen = f"{unit.name} is stopped{_why(machine, unit) if unit['Result'] != 'success' else ''}"
        yield error(unit.name, seen, unit.systemctl("start"))
    elif int(unit["NRestarts"] or 0) >= MANY_RESTARTS:
        seen = f"{unit.name} runs now, after {unit['NRestarts']} restarts{_why(machine, unit)}"
        yield warning(unit.name, seen, unit.show_journal("-n", "50"))


def _kept(unit: Unit) -> Iterator[Finding]:
    """What will be different after a reboot or a reload."""
    if unit["UnitFileState"] == "disabled":
        seen = f"{unit.name} is not enabled: it will not start on boot"
        yield warning(unit.name, seen, unit.systemctl("enable"))
    if unit["NeedDaemonReload"] == "yes":
        seen = f"the files of {unit.name} have changed since systemd read them"
        yield warning(unit.name, seen, f"{unit.control} daemon-reload", unit.systemctl("restart"))


def _why(machine: Machine, unit: Unit) -> str:
    parts = []
    if meaning := STATUSES.get(unit["ExecMainStatus"]):
        parts.append(f"exit status {unit['ExecMainStatus']}: {meaning}")
    elif unit["Result"] not in ("", "success"):
        parts.append(f"result {unit['Result']}, status {unit['ExecMainStatus']}")
    if last := last_error(machine, unit):
        parts.append(f"last error: {last}")
    return "".join(f"; {part}" for part in parts)


def last_error(machine: Machine, unit: Unit) -> str:
    """The last line of the unit's journal that is an error or worse, else the last one; or ""."""
    lines = []
    command = unit.journal("-n", "100", "-o", "json", "--no-pager")
    for line in machine.run(*command, seconds=5).out.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    own = [entry for entry in lines if entry.get("_PID") != "1" and entry.get("MESSAGE")]
    bad = [
        entry
        for entry in own
        if str(entry.get("PRIORITY", "6")) <= "3" or str(entry["MESSAGE"]).startswith("error: ")
    ]
    chosen = (bad or own or lines)[-1:]
    message = str(chosen[0].get("MESSAGE", "")).strip() if chosen else ""
    return message.removeprefix("error: ").splitlines()[-1][:300] if message else ""


CHECK = Check(
    code="LF201",
    title="Service",
    sees="the unit is missing, failed, stopped, restarting, masked, not enabled, or changed on "
    "disk; with what its exit status means and the last error of its journal",
    fix="starts, enables or reloads it",
    look=look,
)
