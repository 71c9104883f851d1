"""This machine's network interfaces, and by which of them packets leave, as iproute2 tells them."""

from __future__ import annotations

import json
from typing import Any

from llamaforge.doctor.machine import Done, Machine


def links(machine: Machine) -> list[dict[str, Any]]:
    """All interfaces with their addresses, as `ip -j addr` shows them; empty where it can't."""
    return _json(machine.run("ip", "-j", "addr"))


def route(machine: Machine, address: str) -> dict[str, Any]:
    """How packets go to an address: `dev`, `prefsrc`, …; empty where there is no way."""
    found = _json(machine.run("ip", "-j", "route", "get", address))
    return found[0] if found else {}


def _json(done: Done) -> list[dict[str, Any]]:
    try:
        return list(json.loads(done.out)) if done.code == 0 else []
    except ValueError:
        return []
