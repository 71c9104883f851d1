"""Workers that leave in the middle of a generation: it ends in order, and the job need not."""

from __future__ import annotations

import pytest
from generation_world import STOP_SECONDS, World

from llamaforge.coordinator.leading.generation import (
    CAUSE_SECONDS,
    Phase,
)
from llamaforge.coordinator.leading.outcome import Setback
from llamaforge.spec.ranks import Failed
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import (
    CannotStart,
)


@pytest.fixture
def world() -> World:
    return World()


def test_a_worker_that_leaves_ends_the_generation_and_not_the_job(world: World) -> None:
    world.run()
    world.generation.leave("b", "its worker was told to end")
    assert world.generation.phase is Phase.STOPPING
    assert world.stops() == [("a", "checkpoint"), ("b", "checkpoint")]
    world.generation.leave("b", "its worker was told to end")  # said twice, done once
    world.generation.leave("stranger", "no member")
    assert len(world.stops()) == 2
    world.finish(stopped=True)
    world.exit(0, 1, 2, 3)
    world.upload()
    outcome = world.outcome()
    assert (outcome.state, outcome.setback) == (None, Setback.GAVE_WAY)
    assert outcome.reason == "b left (its worker was told to end)"


def test_a_leaver_owes_no_artifacts(world: World) -> None:
    world.run()
    world.generation.leave("a", "told to end")
    world.finish(stopped=True)
    world.exit(0, 1, 2, 3)
    world.upload(error="the connection broke")
    assert world.outcome().state is None


def test_leaving_and_being_stopped_at_once_is_a_stop(world: World) -> None:
    world.run()
    world.generation.leave("b", "told to end")
    world.generation.stop("stopped by the user")
    assert world.stops() == [("a", "checkpoint"), ("b", "checkpoint")]  # they save already
    world.finish(stopped=True)
    world.exit(0, 1, 2, 3)
    world.upload()
    assert world.outcome().state is JobState.STOPPED
    assert world.outcome().reason == "stopped by the user; a checkpoint is saved"


def test_a_stop_asked_for_twice_ends_leavers_at_once(world: World) -> None:
    world.run()
    world.generation.leave("b", "told to end")
    world.generation.stop("stopped by the user")
    world.generation.stop("stopped by the user")
    assert world.stops()[2:] == [("a", "end"), ("b", "end")]
    world.exit(0, 1, 2, 3, code=None, signal=15, ordered=True)
    assert world.outcome().state is JobState.STOPPED


def test_a_leaver_in_a_hurry_is_no_failure(world: World) -> None:
    """Its ranks were killed before the others had saved; these notice."""
    world.run()
    world.generation.leave("b", "told to end")
    world.exit(2, 3, code=None, signal=9, ordered=True)
    world.generation.said(0, Failed(kind="GroupBroken", message="rank 0 lost a peer"))
    world.now = CAUSE_SECONDS
    world.generation.tick()
    world.exit(0, 1, code=1, ordered=True)
    outcome = world.outcome()
    assert (outcome.state, outcome.setback) == (None, Setback.GAVE_WAY)


def test_a_checkpoint_that_a_leaver_waits_for_too_long_is_done_without(world: World) -> None:
    world.run()
    world.generation.leave("b", "told to end")
    world.now = STOP_SECONDS
    world.generation.tick()
    assert world.stops()[2:] == [("a", "end"), ("b", "end")]
    world.exit(0, 1, 2, 3, code=None, signal=15, ordered=True)
    assert (world.outcome().state, world.outcome().setback) == (None, Setback.GAVE_WAY)


def test_a_worker_that_leaves_before_the_first_step_ends_the_ranks(world: World) -> None:
    world.generation.leave("b", "told to end")
    world.generation.cannot_start(
        "b", CannotStart(job_id="j", generation=1, kind="FleetError", message="stopped before")
    )
    assert world.stops()[2:] == [("a", "end")]
    world.exit(0, 1, code=None, signal=15, ordered=True)
    assert world.outcome().setback is Setback.GAVE_WAY


def test_leaving_after_the_last_step_changes_nothing(world: World) -> None:
    world.run()
    world.finish()
    world.generation.leave("b", "told to end")
    assert world.stops() == []
    world.exit(0, 1, 2, 3)
    world.upload()
    assert world.outcome().state is JobState.DONE
