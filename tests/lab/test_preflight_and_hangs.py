"""On real machines: a node behind a firewall is named with its port, and a rank that stops."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lab_fleet import Fleet
from lab_service import ranks

from lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMED_WITHIN = 45.0
"""Seconds from the stop of a rank to its name."""


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


def test_a_node_behind_a_firewall_is_named_with_its_port(fleet: Fleet) -> None:
    """Its worker dials out, so it joins; the others can't reach its ranks. The job does without."""
    behind = fleet.workers[1]
    behind.shell(
        "nft add table inet shut && "
        "nft add chain inet shut in '{ type filter hook input priority 0; }' && "
        "nft add rule inet shut in iifname != lo tcp dport 29500-29600 drop"
    )
    try:
        job = fleet.train("walled", 4)
        job.end()
    finally:
        behind.shell("nft delete table inet shut")
    # On a busy machine a slow link may be told beside it.
    (refusal,) = (said for said in job.events("preflight") if said.get("node") == behind.name)
    assert f"{fleet.workers[0].name} can't reach it at {behind.address}:29500" in refusal["text"]
    assert "open TCP port 29500" in refusal["text"]
    assert "--address" in refusal["text"]


def test_a_stopped_rank_is_named_and_the_job_goes_on(fleet: Fleet) -> None:
    worker = fleet.workers[1]
    job = fleet.train("stopped", 60, "--save-steps 10")
    job.until_step(15)
    victim = next(iter(ranks(worker)))
    worker.run("kill", "-STOP", str(victim))
    begin = time.monotonic()
    while not job.events("hang"):
        assert time.monotonic() - begin < NAMED_WITHIN
        time.sleep(0.5)
    (hang,) = job.events("hang")
    assert hang["node"] == worker.name
    assert "stopped (state T)" in hang["text"]
    proof = job.end()
    assert proof["steps"] == 60
    assert len(proof["generations"]) == 2
    kept = fleet.head.shell(f"cat {job.folder}/hangs/*").stdout
    assert "most recent call first" in kept
    assert "── rank" in kept
