"""A node that can't take part is named, with the fix, within seconds; the others do the job."""

from __future__ import annotations

import time

import pytest

from fleet_rig import Rig
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import GenerationStarted, NoteLine
from llamaforge.worker import interface

SECONDS = 15.0
"""From the submission to the refusal."""


@pytest.fixture
def rig(empty_rig: Rig) -> Rig:
    empty_rig.coordinator()
    return empty_rig


OWN = next(
    (
        str(found)
        for _, found in interface.addresses()
        if found.version == 4 and not found.is_loopback
    ),
    "127.0.0.1",
)
"""An address of this machine; nodes at loopback addresses and at others get no job together."""


@pytest.mark.parametrize(
    ("flags", "why", "fix"),
    [
        ({"address": "192.0.2.77"}, "192.0.2.77 is on none of its interfaces", "--address"),
        ({"cache_limit": "4"}, "whose limit is 4 bytes", "llamaforge clean --dry-run"),
    ],
)
async def test_a_node_that_can_not_take_part_is_left_out(
    rig: Rig, flags: dict[str, object], why: str, fix: str
) -> None:
    rig.worker("worker-1", address=OWN)
    rig.worker("worker-2", **{"address": OWN, **flags})
    await rig.waiting("worker-1", "worker-2")
    begin = time.monotonic()
    ended, updates = await rig.run("job", "steps=2")
    assert time.monotonic() - begin < SECONDS
    assert ended.state is JobState.DONE, ended.reason
    (note,) = [u for u in updates if isinstance(u, NoteLine) and u.kind == "preflight"]
    assert note.text.startswith("worker-2 can't take part: ")
    assert why in note.text
    assert fix in note.text
    (generation,) = [u for u in updates if isinstance(u, GenerationStarted)]
    assert [member.node for member in generation.nodes] == ["worker-1"]
    status = await rig.status()
    assert {node.name: node.canary for node in status.nodes} == {"worker-1": "ca", "worker-2": "ca"}


async def test_a_refused_node_does_not_end_a_job_that_another_one_can_do(rig: Rig) -> None:
    """Whether the scheduler tries both together or one after the other."""
    rig.worker("worker-1")
    rig.worker("worker-2", address="192.0.2.77")
    await rig.waiting("worker-1", "worker-2")
    ended, _ = await rig.run("job", "steps=2")
    assert ended.state is JobState.DONE, ended.reason


async def test_where_no_node_can_take_part_the_job_ends_and_says_why(rig: Rig) -> None:
    rig.worker("worker-1", address="192.0.2.77")
    await rig.waiting("worker-1")
    begin = time.monotonic()
    ended, _ = await rig.run("job", "steps=2")
    assert time.monotonic() - begin < SECONDS
    assert ended.state is JobState.FAILED
    assert ended.reason.startswith("node worker-1 can't take part: its address 192.0.2.77")
    assert "--address" in ended.hint
