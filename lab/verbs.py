"""What a person can do to a lab that is up, by name: the verbs of `python -m lab`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import LabError
from lab.lab import Lab
from lab.node import Node


@dataclass(frozen=True)
class Verb:
    """One verb: how many nodes it names, what value it takes, and what it does."""

    nodes: int
    value: str
    says: str
    act: Callable[[Lab, list[Node], str | None], object]


def _one(act: Callable[[Node], object]) -> Callable[[Lab, list[Node], str | None], object]:
    return lambda _, nodes, __: act(nodes[0])


def _cores(value: str | None) -> float | None:
    if value in (None, "off"):
        return None
    try:
        cores = float(str(value))
    except ValueError:
        cores = 0.0
    if not 0.01 <= cores <= 4096:
        raise LabError(f"{value!r} is no number of cores; 0.25 is a quarter of one, off lifts it")
    return cores


def _rate(value: str | None) -> str | None:
    """A rate of tc(8). Without a unit tc would mean bits, which cuts a node off for good."""
    if value == "off":
        return None
    if not re.fullmatch(r"[1-9][0-9.]*(k|m|g)(bit|bps)", str(value)):
        raise LabError(f"{value!r} is no rate; 100mbit is one, off lifts it")
    return value


VERBS = {
    "boot": Verb(1, "", "power on", _one(lambda node: node.boot())),
    "reboot": Verb(1, "", "reboot from inside", _one(lambda node: node.reboot())),
    "shutdown": Verb(1, "", "power off from inside", _one(lambda node: node.shutdown())),
    "power-cut": Verb(1, "", "power off without asking", _one(lambda node: node.power_cut())),
    "freeze": Verb(1, "", "stop all processes at once", _one(lambda node: node.freeze())),
    "thaw": Verb(1, "", "let a frozen node go on", _one(lambda node: node.thaw())),
    "unplug": Verb(1, "", "pull the network cable", _one(lambda node: node.unplug())),
    "replug": Verb(1, "", "put the cable back", _one(lambda node: node.replug())),
    "throttle": Verb(
        1,
        "CORES|off",
        "let the node use so many cores, as 0.25",
        lambda _, nodes, value: nodes[0].throttle(_cores(value)),
    ),
    "shape": Verb(
        1,
        "RATE|off",
        "limit the node's link, as 100mbit",
        lambda _, nodes, value: nodes[0].shape(_rate(value)),
    ),
    "partition": Verb(
        2,
        "",
        "cut two nodes off from each other",
        lambda lab, nodes, _: lab.partition(nodes[:1], nodes[1:]),
    ),
    "heal": Verb(0, "", "end all partitions", lambda lab, _, __: lab.heal()),
}


def do(lab: Lab, verb: str, names: list[str], value: str | None) -> object:
    """Do one verb. Raises LabError on a name that does not exist."""
    unknown = [name for name in names if name not in lab.nodes]
    if unknown:
        raise LabError(f"there is no node {unknown[0]!r}; there are {', '.join(lab.nodes)}")
    if len(set(names)) < len(names):
        raise LabError(f"{verb} needs two different nodes; there are {', '.join(lab.nodes)}")
    return VERBS[verb].act(lab, [lab.nodes[name] for name in names], value)
