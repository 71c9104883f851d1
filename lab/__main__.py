"""`python -m lab`: a fleet of systemd machines for a person. `up`, `enter`, `status`, `down`, …"""

from __future__ import annotations

import argparse
import json
import os
import sys

from lab import door
from lab.commands import entering, environment, joining
from lab.errors import LabError
from lab.fleet import up
from lab.image import IMAGES
from lab.ledger import ledgers
from lab.requirements import missing, require
from lab.teardown import clean
from lab.verbs import VERBS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    top.add_argument("--lab", metavar="NAME", help="which lab, when several are up")
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = verbs.add_parser("up", help="boot a coordinator's host and two worker nodes; stays")
    one.add_argument("--image", choices=IMAGES, default="installed")
    one = verbs.add_parser("enter", help="a shell or a command on a node")
    one.add_argument("node")
    one.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    one = verbs.add_parser("status", help="labs on this box, and what a lab lacks here")
    one.add_argument("--json", action="store_true")
    verbs.add_parser("down", help="take down the lab that is up")
    one = verbs.add_parser("clean", help="take down labs whose owner died")
    one.add_argument("--all", action="store_true", help="all labs, those in use, too")
    one = verbs.add_parser("build", help="build the installed image, if it is not built")
    one.add_argument("--if-possible", action="store_true", help="do nothing where no lab can be")
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.says)
        if verb.nodes:
            one.add_argument("nodes", nargs=verb.nodes, metavar="NODE")
        if verb.value:
            one.add_argument("value", metavar=verb.value)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked; 2 when the person or the box is at fault, saying how to go on."""
    asked = parser().parse_args(arguments)
    try:
        return _do(asked)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _do(asked: argparse.Namespace) -> int:
    if asked.command == "status":
        return _status(asked.json)
    if asked.command == "build":
        return _build(asked.if_possible)
    require()
    if asked.command == "up":
        up(asked.image)
    elif asked.command == "clean":
        gone = clean(everything=asked.all)
        print("gone: " + ", ".join(gone) if gone else "nothing to clean")
    elif asked.command == "down":
        return _down(asked.lab)
    elif asked.command == "enter":
        _enter(_lab(asked.lab), asked.node, asked.words)
    else:
        result = door.ask(
            _lab(asked.lab),
            verb=asked.command,
            nodes=getattr(asked, "nodes", []),
            value=getattr(asked, "value", None),
        )
        print("done" if result is None else f"done in {result:.1f} s")
    return 0


def _lab(name: str | None) -> str:
    """The lab that is meant."""
    return door.named(name) if name else door.open_lab()


def _down(name: str | None) -> int:
    name = _lab(name)
    door.ask(name, ask="down")
    door.wait_gone(name)
    print(f"lab {name} is gone")
    return 0


def _enter(lab: str, name: str, words: list[str]) -> None:
    nodes = {node["name"]: node for node in door.ask(lab, ask="nodes")}
    if name not in nodes:
        raise LabError(f"there is no node {name!r}; there are {', '.join(nodes)}")
    node = nodes[name]
    if not node["on"]:
        raise LabError(f"{name} is off; run: python -m lab boot {name}")
    given = {"TERM": os.environ.get("TERM", "dumb"), "HOME": "/root", "USER": "root"}
    command = words or ["bash", "--login"]
    line = [*entering(node["pid"]), "env", "-i", *environment(given)]
    whole = [*joining(node["groups"]), *line, *command]
    os.execvp(whole[0], whole)


def _status(as_json: bool) -> int:
    labs = []
    for ledger in ledgers():
        owner = ledger.owner()
        entry = {"name": ledger.name, "owner": owner.pid if owner else None}
        entry["alive"] = bool(owner and owner.alive)
        labs.append(entry)
    lacking = missing()
    if as_json:
        print(json.dumps({"labs": labs, "missing": lacking}))
        return 0
    for lab in labs:
        print(f"{lab['name']}: owner {lab['owner']}{'' if lab['alive'] else ', dead'}")
        for node in _nodes(str(lab["name"])):
            print(f"  {node['name']:<12} {node['address']:<14} {'on' if node['on'] else 'off'}")
    if not labs:
        print("no lab on this box")
    for line in lacking:
        print(f"missing: {line}")
    return 0


def _nodes(name: str) -> list[dict[str, object]]:
    try:
        return list(door.ask(name, seconds=5, ask="nodes"))
    except LabError:
        return []  # a test's lab, which has no door


def _build(if_possible: bool) -> int:
    lacking = missing()
    if lacking and if_possible:
        print(f"no installed image: {'; '.join(lacking)}", file=sys.stderr)
        return 0
    require()
    from lab.lab import Lab

    with Lab.open() as lab:
        lab.build()
    return 0


if __name__ == "__main__":
    sys.exit(main())
