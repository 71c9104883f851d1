"""LF309: this machine's clock agrees with the fleet's, and something keeps it right."""

from __future__ import annotations

from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note, warning
from llamaforge.doctor.host import Host
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import HEALTH, Subject

SKEW = 2.0
"""Seconds; the clocks are told in whole seconds, so less can't be seen."""
FAR = 300.0
"""Seconds off after which certificates and package servers refuse."""
SYNC = ("sudo timedatectl set-ntp true",)


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Compares with the Date of each node's health page."""
    for address, host in subject.servers.items():
        yield from _compared(machine, address, host)
    yield from _kept(machine)


def _compared(machine: Machine, address: str, host: Host) -> Iterator[Finding]:
    before = machine.now()
    answer = machine.ask(address, host.port, HEALTH, tls=host.speaks_tls)
    if answer is None or answer.date is None:
        return
    off = skew(before, machine.now(), answer.date)
    if abs(off) > SKEW:
        ahead = "behind" if off > 0 else "ahead of"
        seen = f"this clock is {abs(off):.0f} s {ahead} that of {host.name}"
        report = error if abs(off) > FAR else warning
        yield report(host.name, seen, *SYNC, f"sudo timedatectl set-ntp true  # on {host.name}")


def skew(before: float, after: float, date: float) -> float:
    """Seconds that the other clock is ahead at least; 0 where it can be right.

    Args:
        before: Unix time here when the question was asked.
        after: and when the answer was here.
        date: Unix time there in between, in whole seconds: up to one second later is as true.
    """
    if date > after:
        return date - after
    return min(0.0, date + 1.0 - before)


def _kept(machine: Machine) -> Iterator[Finding]:
    done = machine.run("timedatectl", "show", "-p", "NTPSynchronized", "-p", "NTP")
    if done.code or "NTPSynchronized=no" not in done.out:
        return
    if machine.run("systemd-detect-virt", "--container").code == 0:
        yield note("clock", "the clock of a container is its host's; look there whether it is kept")
        return
    on = "NTP=yes" in done.out
    seen = (
        "time synchronisation is on, and no server has answered yet"
        if on
        else ("nothing keeps this clock right: neither chrony nor systemd-timesyncd runs")
    )
    fix = ("timedatectl timesync-status",) if on else SYNC
    yield warning("clock", seen, *fix)


CHECK = Check(
    code="LF309",
    title="Clock",
    sees="this clock is more than 2 s off that of a peer or of the coordinator, or nothing keeps "
    "it right",
    fix="turns time synchronisation on",
    look=look,
)
