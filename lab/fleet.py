"""`python -m lab up`: a coordinator's host and two worker nodes, for a person to play with."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

from lab.door import Door, answer
from lab.errors import LabError
from lab.image import say
from lab.lab import Lab
from lab.node import Node
from lab.verbs import do

WORKERS = ("node1", "node2")
COORDINATOR = "coordinator"
_ENTER = "sudo .venv/bin/python -m lab"


def up(image: str = "installed") -> None:
    """Bring up the fleet, print how to use it, and hold it until Ctrl-C or `down`."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with Lab.open() as lab:
        for name in (COORDINATOR, *WORKERS):
            say(f"making the disk of {name}")
            lab.add(name, image=image)
        say("booting")
        lab.boot()
        service = image == "installed" and _set_up_services(lab)
        door = Door(lab.name)
        try:
            print(welcome(lab, service), flush=True)
            hold(lab, door)
        finally:
            door.close()
            say("taking everything down")


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _set_up_services(lab: Lab) -> bool:
    """Install and start the worker on the worker nodes, waiting for torchrun on the coordinator."""
    address = lab.nodes[COORDINATOR].address
    fleet = ["--master-addr", address, "--world-size", str(1 + len(WORKERS))]
    for rank, name in enumerate(WORKERS, 1):
        node = lab.nodes[name]
        if node.run("llamaforge", "worker", "install", "--help", check=False).returncode:
            say("`llamaforge worker install` does not exist in this checkout: no services")
            return False
        say(f"installing the worker on {name}")
        node.run("llamaforge", "worker", "install", *fleet, "--node-rank", str(rank), timeout=120)
    return True


def hold(lab: Lab, door: Door) -> None:
    """Answer at the door, and boot again what rebooted, until somebody says "down"."""
    while True:
        for node in lab.nodes.values():
            if node.machine.wants_reboot():
                say(f"{node.name} reboots")
                node.boot()
        guest = door.knock(0.3)
        if guest is None:
            continue
        visitor, request = guest
        if request.get("ask") == "down":
            answer(visitor, {"result": "down"})
            return
        try:
            answer(visitor, {"result": _result(lab, request)})
        except (LabError, OSError) as error:
            answer(visitor, {"error": str(error)})


def _result(lab: Lab, request: dict[str, Any]) -> object:
    if request.get("ask") == "nodes":
        return [describe(node) for node in lab.nodes.values()]
    return do(lab, request["verb"], request["nodes"], request.get("value"))


def describe(node: Node) -> dict[str, Any]:
    """A node as `status` and `enter` need it."""
    return {
        "name": node.name,
        "address": node.address,
        "on": node.alive,
        "pid": node.pid if node.alive else None,
        "groups": [str(path) for path in node.machine.groups.joined_by_commands()],
    }


def welcome(lab: Lab, service: bool) -> str:
    """What to type now."""
    address = lab.nodes[COORDINATOR].address
    nodes = "\n".join(f"  {node.name:<12} {node.address}" for node in lab.nodes.values())
    lines = [
        f"\nLab {lab.name} is up; this box is {lab.gateway}.\n{nodes}\n",
        "In another terminal, in this folder:",
        f"  {_ENTER} enter node1       # a shell on node1",
        f"  {_ENTER} power-cut node1   # more of that: --help",
        f"  {_ENTER} status",
    ]
    if service:
        lines += [
            "\nWorkers wait on node1 and node2. Watch one, and start a job on the coordinator:",
            f"  {_ENTER} enter node1 journalctl -u llamaforge-worker -f",
            f"  {_ENTER} enter coordinator",
            "  /opt/llamaforge/current/bin/torchrun --nproc_per_node=1 --nnodes=3 --node_rank=0 \\",
            f"      --master_addr={address} --master_port=29500 \\",
            "      /srv/llamaforge/distributed_train.py --model tiny --batch-size 2 --epochs 1 \\",
            "      --dataset /srv/llamaforge/examples/datasets/alpaca_1k.jsonl",
        ]
    return "\n".join(
        [*lines, "\nCtrl-C here, or `make lab-down` anywhere, ends it and leaves nothing."]
    )
