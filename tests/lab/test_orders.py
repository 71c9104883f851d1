"""People who give orders: on the coordinator's machine by its socket, elsewhere by certificate."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab_fleet import Fleet
from lab_people import at_a_terminal, make_user

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRAIN = "--model tiny --dataset rows.jsonl --batch-size 6 --epochs 40000"
LONG = f"{TRAIN} --max-steps 500000 --save-steps 1000"


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    """A coordinator's host, one worker, and somebody's desk, which is no node of the fleet."""
    nodes = [lab.add(name, image="installed") for name in ("head", "node1", "desk")]
    lab.boot()
    fleet = Fleet(nodes[0])
    fleet.join(nodes[1])
    yield fleet
    for node in nodes:
        node.power_cut()


@pytest.fixture(scope="module")
def head(fleet: Fleet) -> Node:
    """The coordinator's host, where ada may give orders and eve may not."""
    head = fleet.head
    make_user(head, "ada", "llamaforge")
    make_user(head, "eve")
    for user in ("ada", "eve"):
        head.write(f"/home/{user}/rows.jsonl", head.read("/srv/jobs/rows.jsonl"))
    return head


@pytest.fixture(scope="module")
def desk(fleet: Fleet, head: Node, lab: Lab) -> Node:
    """Where bob logs in to the fleet; he is nobody on the coordinator's machine."""
    desk = lab.nodes["desk"]
    make_user(desk, "bob")
    desk.write("/home/bob/rows.jsonl", head.read("/srv/jobs/rows.jsonl"))
    token = fleet.token("--person", "bob")
    login = ("llamaforge", "login", fleet.address)
    desk.run(*login, input=token + "\n", user="bob", timeout=60)
    return desk


def typed(node: Node, line: str, user: str, *, check: bool = True) -> str:
    """What a line of shell says in somebody's home."""
    done = node.shell(f"cd ~ && {line}", user=user, check=check, timeout=180)
    return done.stdout + done.stderr


def jobs(node: Node, user: str) -> dict[str, dict[str, object]]:
    """The fleet's jobs by id."""
    lines = node.run("llamaforge", "jobs", "--all", "--json", user=user).stdout.splitlines()
    return {job["id"]: job for job in map(json.loads, lines)}


def test_a_member_of_the_group_trains_and_has_the_files(head: Node) -> None:
    said = typed(head, f"llamaforge train {TRAIN} --max-steps 8 --name adas", "ada")
    proof = json.loads(head.read("/home/ada/runs/adas/proof.json"))
    assert proof["steps"] == 8
    assert head.shell("stat -c %U /home/ada/runs/adas/proof.json").stdout.strip() == "ada"
    job = jobs(head, "ada")["adas"]
    assert (job["state"], job["submitter"]) == ("done", "local:ada"), said


def test_somebody_else_is_told_who_may(head: Node) -> None:
    for verb in ("jobs", f"submit {TRAIN} --max-steps 2", "coordinator token"):
        said = typed(head, f"llamaforge {verb}; echo code $?", "eve")
        assert "code 1" in said
        assert "the group llamaforge" in said, said


def test_a_person_elsewhere_trains_with_a_certificate(fleet: Fleet, head: Node, desk: Node) -> None:
    typed(desk, f"llamaforge train {TRAIN} --max-steps 8 --name bobs", "bob")
    assert json.loads(desk.read("/home/bob/runs/bobs/proof.json"))["steps"] == 8
    assert jobs(desk, "bob")["bobs"]["submitter"] == "person:bob"
    assert "bobs" in typed(desk, "llamaforge events -n 50", "bob")
    # What is only for the coordinator's machine is not for him.
    assert "may not ask for" in typed(desk, "llamaforge coordinator token", "bob", check=False)
    modes = desk.shell("find /home/bob/.config/llamaforge -type f -exec stat -c '%a' {} +").stdout
    assert set(modes.split()) == {"600"}
    assert fleet.states() == {"node1": "ready"}


def test_ctrl_c_asks_and_the_job_goes_on_without_the_terminal(head: Node) -> None:
    done = at_a_terminal(
        head,
        f"cd ~ && llamaforge train {LONG} --name left; echo code $?",
        ("step", "\x03"),
        ("detach", "d\n"),
        user="ada",
        seconds=90,
    )
    assert "goes on without this terminal" in done.stdout, done.stdout
    assert "code 0" in done.stdout
    step = int(str(jobs(head, "ada")["left"]["step"]))
    head.wait_for(
        lambda: int(str(jobs(head, "ada")["left"]["step"])) > step,
        seconds=20,
        what="it trains on",
    )
    done = at_a_terminal(head, "llamaforge attach left", ("step", "\x03"), user="ada", seconds=60)
    assert jobs(head, "ada")["left"]["state"] == "running", done.stdout
    at_a_terminal(
        head,
        "llamaforge logs left -n 5; llamaforge status left; llamaforge events --job left",
        user="ada",
    )
    typed(head, "llamaforge cancel left", "ada")
    head.wait_for(
        lambda: jobs(head, "ada")["left"]["state"] == "stopped",
        seconds=60,
        what="the job is stopped",
    )


def test_who_is_withdrawn_is_refused_at_once(head: Node, desk: Node) -> None:
    assert "bob" in typed(head, "llamaforge people", "ada")
    typed(head, "llamaforge people --withdraw bob", "ada")
    said = typed(desk, "llamaforge jobs; echo code $?", "bob")
    assert "code 0" not in said
    assert "may use this fleet no more" in said
