"""A script's generation: it is done when all its ranks are, however early rank 0 ends."""

from __future__ import annotations

import pytest
from generation_world import World

from llamaforge.coordinator.leading.generation import LEAVE_SECONDS, Phase
from llamaforge.spec.ranks import StoreReady
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState


@pytest.fixture
def world() -> World:
    world = World(ScriptJob(id="j", command=("train.py",)))
    world.generation.said(0, StoreReady(host="10.0.0.1", port=5))
    assert world.generation.phase is Phase.RUNNING
    return world


def rank_0s_node_is_done(world: World) -> None:
    world.exit(1)
    world.finish()
    world.exit(0)
    world.upload()


def test_other_nodes_may_take_their_time(world: World) -> None:
    rank_0s_node_is_done(world)
    world.now = 10 * LEAVE_SECONDS
    world.generation.tick()
    assert world.stops() == []
    assert not world.generation.over
    world.exit(2, 3)
    assert world.outcome().state is JobState.DONE


def test_results_may_arrive_last(world: World) -> None:
    world.exit(1)
    world.finish()
    world.exit(0, 2, 3)
    assert world.generation.phase is Phase.FINISHING
    assert not world.generation.over
    world.upload()
    assert world.outcome().state is JobState.DONE


def test_a_rank_that_fails_after_rank_0_has_ended_fails_the_script(world: World) -> None:
    rank_0s_node_is_done(world)
    world.exit(2, code=7, last_lines=("no such file",))
    assert world.stops() == [("b", "end")]
    world.exit(3, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert outcome.state is JobState.FAILED
    assert "rank 2 on b" in outcome.reason
    assert "no such file" in outcome.reason


def test_a_node_that_is_lost_after_rank_0_has_ended_fails_the_generation(world: World) -> None:
    rank_0s_node_is_done(world)
    world.generation.lost("b", "it is silent")
    assert world.outcome().state is JobState.FAILED


def test_a_script_that_is_stopped_while_it_ends_is_not_done(world: World) -> None:
    rank_0s_node_is_done(world)
    world.generation.stop("cancelled")
    world.exit(2, 3, code=None, signal=15, ordered=True)
    assert world.outcome().state is JobState.STOPPED


def test_a_script_that_was_asked_to_leave_keeps_its_results(world: World) -> None:
    world.generation.stop("cancelled")
    assert world.stops() == [("a", "checkpoint"), ("b", "checkpoint")]
    world.exit(1, code=None, signal=15, ordered=True)
    world.finish(stopped=True)
    world.exit(0, 2, 3, code=None, signal=15, ordered=True)
    world.upload()
    assert world.outcome().state is JobState.STOPPED
