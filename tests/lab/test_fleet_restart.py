"""A coordinator and two worker services on three machines: whatever ends in the middle of a job,
the result has the same SHA-256 as an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_fleet import Fleet, Job
from lab_service import UNIT, until_waiting

from lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 60
DIGESTS = ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained", "steps")


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    nodes = [lab.add(name, image="installed") for name in ("head", "node1", "node2")]
    lab.boot()
    fleet = Fleet(nodes[0])
    for worker in nodes[1:]:
        fleet.join(worker)
    yield fleet
    for node in nodes:
        node.power_cut()


def train(fleet: Fleet, name: str, *more: str) -> Job:
    return fleet.train(name, STEPS, "--save-steps 5", *more)


@pytest.fixture(scope="module")
def undisturbed(fleet: Fleet) -> dict[str, Any]:
    """The proof of a run that nothing happened to."""
    proof = train(fleet, "undisturbed").end()
    assert len(proof["generations"]) == 1
    assert proof["guarantee"] == "same numbers"
    return proof


def same(proof: dict[str, Any], undisturbed: dict[str, Any]) -> bool:
    assert {key: proof[key] for key in DIGESTS} == {key: undisturbed[key] for key in DIGESTS}
    return bool(proof["guarantee"] == "same numbers")


def test_a_restarted_service_costs_the_job_one_generation(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    job = train(fleet, "restarted")
    job.until_step(6)
    fleet.workers[1].run("systemctl", "restart", UNIT, timeout=100)
    proof = job.end()
    assert same(proof, undisturbed)
    first, second = proof["generations"]
    assert first["ended"].startswith("node2 left")
    assert second["first_step"] == first["last_step"] + 1  # nothing was done twice
    assert second["ranks"] == {"node1": 1, "node2": 1}  # the job waited for it
    fleet.until_all_wait()


def test_a_power_cut_of_a_worker_costs_the_steps_since_the_checkpoint(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    job = train(fleet, "dark")
    job.until_step(8)
    fleet.workers[0].power_cut()  # the one with rank 0
    fleet.workers[0].boot()
    proof = job.end()
    assert same(proof, undisturbed)
    (event,) = job.events("continues")
    assert event["why"].startswith("node node1 is lost")
    until_waiting(fleet.workers[0])
    fleet.until_all_wait()
