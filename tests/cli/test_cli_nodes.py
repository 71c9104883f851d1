"""`nodes` and `drain`: the table, and wishes with what follows from them."""

from __future__ import annotations

import json

import pytest

from cli.fake_fleet import NOW, FakeFleet, a_node
from llamaforge.cli.main import run
from llamaforge.cli.nodes import groups, lines
from llamaforge.spec.states import NodeState

Output = pytest.CaptureFixture[str]


@pytest.fixture
def two(fleet: FakeFleet) -> FakeFleet:
    fleet.nodes = [
        a_node("box1", NodeState.BUSY, job="tiny-1", ranks=2, canary="aa", labels=("ssd",), gpus=1),
        a_node("box2", reason="", versions={"llamaforge": "0.1.0"}),
    ]
    return fleet


def typed(fleet: FakeFleet, *args: str) -> int:
    return run([*args, "--fleet", str(fleet.file)])


def wishes(fleet: FakeFleet) -> list[tuple[str, object]]:
    return [(path, body) for method, path, body in fleet.asked if method == "POST"]


def test_the_table(two: FakeFleet) -> None:
    head, first, second = lines(two.nodes, NOW + 120)
    words = first.split()
    assert words[:4] == ["box1", "busy", "2", "min"]
    for expected in ("tiny-1 (2)", "8.6 GB", "  A  ", "ssd"):
        assert expected in first
    assert "0.1.0" in second
    assert head.index("bits") == first.index("A")


def test_letters_go_by_how_many_compute_alike() -> None:
    nodes = [a_node(str(n), canary=digest) for n, digest in enumerate(["x", "y", "y", "", "a"])]
    assert groups(nodes) == {"y": "A", "a": "B", "x": "C"}


def test_nodes_as_json(two: FakeFleet, capsys: Output) -> None:
    assert typed(two, "nodes", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(node["name"], node["state"]) for node in said] == [("box1", "busy"), ("box2", "ready")]


def test_no_nodes_say_how_to_get_one(fleet: FakeFleet, capsys: Output) -> None:
    assert typed(fleet, "nodes") == 0
    assert "llamaforge coordinator token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "wish", "told"),
    [
        (["nodes", "drain", "box1"], ("drain", False), "what runs there goes on to its end"),
        (["drain", "box1", "--now"], ("drain", True), "leaves job tiny-1 at its next checkpoint"),
        (["drain", "box2"], ("drain", False), "it runs none"),
        (["drain", "box1", "--off"], ("allow", False), "takes jobs again"),
        (["nodes", "cordon", "box2"], ("cordon", False), "takes no more jobs"),
        (["nodes", "remove", "box1"], ("remove", False), "job tiny-1 goes on without it"),
    ],
)
def test_wishes(
    two: FakeFleet, capsys: Output, args: list[str], wish: tuple[str, bool], told: str
) -> None:
    assert typed(two, *args, "--reason", "new disk") == 0
    node = "box1" if "box1" in args else "box2"
    body = {"wish": wish[0], "reason": "new disk", "now": wish[1]}
    assert wishes(two) == [(f"/v1/nodes/{node}", body)]
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("args", [["drain", "box1"], ["nodes", "remove", "box1"]])
def test_a_dry_run_wishes_nothing(two: FakeFleet, capsys: Output, args: list[str]) -> None:
    assert typed(two, *args, "--dry-run") == 0
    assert capsys.readouterr().out.startswith("dry run: node box1 ")
    assert wishes(two) == []


def test_options_may_stand_before_the_wish(two: FakeFleet, capsys: Output) -> None:
    assert run(["nodes", "--fleet", str(two.file), "--json", "cordon", "box2"]) == 0
    assert json.loads(capsys.readouterr().out)["wish"] == "cordon"


def test_wrong_wishes(two: FakeFleet, capsys: Output) -> None:
    assert typed(two, "drain", "box3") == 2
    assert "no node 'box3' in this fleet" in capsys.readouterr().err
    assert typed(two, "drain", "box1", "--off", "--now") == 2
    assert "contradict" in capsys.readouterr().err
    assert typed(two, "nodes", "explode", "box1") == 2
    assert wishes(two) == []
