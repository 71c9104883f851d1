"""A generation's life, without sockets, processes or real time."""

from __future__ import annotations

import pytest
from generation_world import STOP_SECONDS, World
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.coordinator.leading.generation import (
    CAUSE_SECONDS,
    END_SECONDS,
    LEAVE_SECONDS,
    Phase,
)
from llamaforge.coordinator.leading.outcome import Outcome, Setback
from llamaforge.spec.ranks import Failed
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import (
    CannotStart,
    Rendezvous,
    StartRanks,
)


@pytest.fixture
def world() -> World:
    return World()


def test_every_node_is_told_its_ranks(world: World) -> None:
    orders = [(node, m.first_rank, m.count, m.world_size) for node, m in world.sent]  # type: ignore[union-attr]
    assert all(isinstance(m, StartRanks) for _, m in world.sent)
    assert orders == [("a", 0, 2, 4), ("b", 2, 2, 4)]


def test_the_good_life(world: World) -> None:
    generation = world.generation
    world.run()
    assert generation.phase is Phase.RUNNING
    assert [node for node, m in world.sent if isinstance(m, Rendezvous)] == ["a", "b"]
    world.finish()
    assert generation.phase is Phase.FINISHING
    world.exit(0, 1, 2, 3)
    assert not generation.over  # the artifacts are still on their way
    world.upload()
    assert world.outcome() == Outcome(state=JobState.DONE, reason="finished", proof={"steps": 3})
    assert world.stops() == []


def test_a_failed_rank_ends_the_others_and_is_the_cause(world: World) -> None:
    world.run()
    world.generation.said(2, Failed(kind="NumberError", message="loss is NaN", hint="lower lr"))
    assert world.stops() == [("a", "end"), ("b", "end")]
    world.exit(2, code=1, last_lines=("line a", "line b"))
    world.exit(0, 1, 3, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert outcome.state is JobState.FAILED
    assert "rank 2 on b failed: NumberError: loss is NaN" in outcome.reason
    assert "line b" in outcome.reason
    assert outcome.hint == "lower lr"
    assert not outcome.user_error


def test_a_users_mistake_keeps_its_exit_code_and_spares_the_log(world: World) -> None:
    world.generation.said(0, Failed(kind="DataError", message="row 7 is empty", user_error=True))
    world.exit(0, code=2, last_lines=("noise",))
    world.exit(1, 2, 3, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert outcome.user_error
    assert "row 7 is empty" in outcome.reason
    assert "noise" not in outcome.reason


def test_a_rank_that_heard_of_a_failure_is_not_its_cause(world: World) -> None:
    """Its word may arrive before the word of the rank that failed."""
    world.run()
    world.generation.said(0, Failed(kind="PeerFailed", message="rank 3 ended with an error"))
    world.generation.said(3, Failed(kind="NotFinite", message="step 4, row 7: the loss is nan"))
    world.exit(0, 1, 2, 3, code=1, ordered=True)
    assert "row 7: the loss is nan" in world.outcome().reason


def test_a_missed_peer_gives_the_cause_a_moment_to_show(world: World) -> None:
    world.run()
    world.generation.said(0, Failed(kind="GroupBroken", message="rank 0 lost a peer"))
    assert world.stops() == []
    world.now = CAUSE_SECONDS
    world.generation.tick()
    assert world.stops() == [("a", "end"), ("b", "end")]
    world.exit(0, 1, 2, 3, code=1, ordered=True)
    assert world.outcome().reason == (
        "rank 0 on a failed: GroupBroken: rank 0 lost a peer (exit code 1)"
    )


@pytest.mark.parametrize("order", [(1, 0), (0, 1)])
def test_a_broken_connection_never_hides_who_died(world: World, order: tuple[int, int]) -> None:
    """Rank 3 is killed; ranks 0 and 1 notice, perhaps before anybody knows why."""
    world.run()
    events = [
        lambda: world.exit(3, code=None, signal=9, last_lines=("allocating",)),
        lambda: world.generation.said(
            0, Failed(kind="RuntimeError", message="Connection closed by peer [10.0.0.2]:5")
        ),
    ]
    for place in order:
        events[place]()
    world.exit(0, code=1)
    world.exit(1, code=None, signal=6)  # c10d aborts
    world.exit(2, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert outcome.reason.startswith("rank 3 on b was killed by SIGKILL")
    assert "allocating" in outcome.reason


def test_a_rank_that_the_kernel_killed_for_memory_says_whose_was_at_its_end(world: World) -> None:
    world.run()
    world.exit(3, code=None, signal=9, memory="its service reached MemoryMax=200M")
    world.exit(0, 1, 2, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert "rank 3 on b was killed by SIGKILL for want of memory" in outcome.reason
    assert "MemoryMax=200M" in outcome.reason
    assert "on b: sudo llamaforge worker install --memory" in outcome.hint


def test_a_crash_names_its_exit_code(world: World) -> None:
    world.run()
    world.exit(1, code=3)
    world.exit(0, 2, 3, code=None, signal=9, ordered=True)
    assert world.outcome().reason == "rank 1 on a ended with exit code 3"


def test_a_lost_node_is_the_cause_even_when_others_notice_first(world: World) -> None:
    world.run()
    world.generation.said(0, Failed(kind="RuntimeError", message="Connection reset by peer"))
    world.exit(0, 1, code=1, ordered=True)
    assert not world.generation.over
    world.generation.lost("b", "gone silent")
    outcome = world.outcome()
    assert outcome.reason == "node b is lost: gone silent"
    assert "--auto-resume" in outcome.hint


def test_losing_a_node_after_the_end_costs_nothing(world: World) -> None:
    world.run()
    world.finish()
    world.exit(0, 1)
    world.upload()
    world.generation.lost("b", "gone silent")
    assert world.outcome().state is JobState.DONE


def test_losing_rank_zeros_node_before_the_artifacts_arrived_fails(world: World) -> None:
    world.run()
    world.finish()
    world.exit(0, 1, 2, 3)
    world.generation.lost("a", "gone silent")
    assert "node a is lost" in world.outcome().reason


def test_artifacts_that_can_not_be_sent_fail_the_job(world: World) -> None:
    world.run()
    world.finish()
    world.exit(0, 1, 2, 3)
    world.upload(error="no space left on device")
    assert "no space left on device" in world.outcome().reason


def test_ranks_that_somebody_else_told_to_end_are_a_loss(world: World) -> None:
    """SIGTERM to a rank itself: all save and leave, and the job is tried again."""
    world.run()
    world.finish(stopped=True)
    world.exit(0, 1, 2, 3)
    world.upload()
    assert world.outcome().setback is Setback.LOST


@pytest.mark.parametrize(
    ("report", "setback"),
    [
        (Failed(kind="DataError", message="row 7", user_error=True), None),
        (Failed(kind="NotFinite", message="step 4: the loss is nan"), None),
        (Failed(kind="OSError", message="no space left"), Setback.ERROR),
        (Failed(kind="GroupBroken", message="rank 0 lost a peer"), Setback.LOST),
    ],
)
def test_what_a_rank_says_decides_whether_it_is_worth_another_try(
    world: World, report: Failed, setback: Setback | None
) -> None:
    world.run()
    world.generation.said(1, report)
    world.exit(0, 1, 2, 3, code=1, ordered=True)
    outcome = world.outcome()
    assert (outcome.state, outcome.setback) == (JobState.FAILED, setback)
    assert report.message in outcome.said


@pytest.mark.parametrize(
    ("end", "setback"),
    [({"code": 3}, Setback.ERROR), ({"code": None, "signal": 9}, Setback.LOST)],
)
def test_how_a_rank_died_decides_it_too(
    world: World, end: dict[str, int | None], setback: Setback
) -> None:
    world.run()
    world.exit(2, **end)  # type: ignore[arg-type]
    world.exit(0, 1, 3, code=None, signal=15, ordered=True)
    assert world.outcome().setback is setback


def test_stop_saves_a_checkpoint(world: World) -> None:
    world.run()
    world.generation.stop("stopped by the user")
    assert world.stops() == [("a", "checkpoint"), ("b", "checkpoint")]
    world.finish(stopped=True)
    world.exit(0, 1, 2, 3)
    world.upload()
    outcome = world.outcome()
    assert outcome.state is JobState.STOPPED
    assert "stopped by the user; a checkpoint is saved" in outcome.reason
    assert "--auto-resume" in outcome.hint


def test_a_second_stop_ends_at_once_and_is_no_failure(world: World) -> None:
    world.run()
    world.generation.stop("stopped by the user")
    world.generation.stop("stopped by the user")
    assert world.stops()[2:] == [("a", "end"), ("b", "end")]
    world.generation.said(0, Failed(kind="RuntimeError", message="Connection closed by peer"))
    world.exit(0, code=1)
    world.exit(1, 2, 3, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert outcome.state is JobState.STOPPED
    assert "without a new checkpoint" in outcome.reason


def test_a_stop_that_takes_too_long_ends_the_ranks(world: World) -> None:
    world.run()
    world.generation.stop("stopped")
    world.now = STOP_SECONDS - 0.1
    world.generation.tick()
    assert world.generation.phase is Phase.STOPPING
    world.now = STOP_SECONDS
    world.generation.tick()
    assert world.stops()[2:] == [("a", "end"), ("b", "end")]
    world.now += END_SECONDS
    world.generation.tick()
    assert world.outcome().state is JobState.STOPPED


def test_ranks_that_linger_after_the_end_are_ended(world: World) -> None:
    world.run()
    world.finish()
    world.exit(0, 1, 2)
    world.upload()
    assert not world.generation.over
    world.now = LEAVE_SECONDS
    world.generation.tick()
    assert world.stops() == [("b", "end")]
    world.exit(3, code=None, signal=9, ordered=True)
    assert world.outcome().state is JobState.DONE


def test_a_node_that_can_not_start_fails_the_job_with_its_reason(world: World) -> None:
    world.generation.cannot_start(
        "b", CannotStart(job_id="j", generation=1, kind="OSError", message="No space left")
    )
    assert world.stops() == [("a", "end")]
    world.exit(0, 1, code=None, signal=15, ordered=True)
    assert "node b failed: OSError: No space left" in world.outcome().reason


def test_a_node_that_has_become_busy_is_done_without(world: World) -> None:
    world.generation.cannot_start(
        "b", CannotStart(job_id="j", generation=1, kind="Busy", message="classic job", busy=True)
    )
    world.exit(0, 1, code=None, signal=15, ordered=True)
    assert world.outcome().state is None


def test_ranks_that_leave_without_a_result_are_a_failure(world: World) -> None:
    world.run()
    world.exit(0, 1, 2, 3)
    assert "ended without a result" in world.outcome().reason


EVENTS = st.one_of(
    st.tuples(st.just("exit"), st.integers(0, 3), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("signal"), st.integers(0, 3), st.sampled_from([6, 9, 15])),
    st.tuples(st.just("failed"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("lost"), st.sampled_from(["a", "b"]), st.none()),
    st.tuples(st.just("finish"), st.booleans(), st.none()),
    st.tuples(st.just("upload"), st.sampled_from(["", "full"]), st.none()),
    st.tuples(st.just("stop"), st.none(), st.none()),
    st.tuples(st.just("leave"), st.sampled_from(["a", "b"]), st.none()),
    st.tuples(st.just("tick"), st.floats(0, 200), st.none()),
    st.tuples(st.just("cannot"), st.sampled_from(["a", "b"]), st.booleans()),
)


@given(st.lists(EVENTS, max_size=14))
def test_whatever_happens_it_ends_with_a_reason(events: list[tuple[str, object, object]]) -> None:
    """Nodes that stay silent can't keep a generation alive once it is ending."""
    world = World()
    world.run()
    for what, first, second in events:
        _happen(world, what, first, second)
    world.generation.stop("end of the test")
    world.generation.stop("end of the test")
    world.exit(0, 1, 2, 3, code=None, signal=9, ordered=True)
    for _ in range(4):
        world.now += 200
        world.generation.tick()
    outcome = world.outcome()
    assert outcome.reason
    if outcome.state is JobState.DONE:
        assert outcome.proof
    if outcome.state is None:
        assert outcome.setback is Setback.GAVE_WAY


def _happen(world: World, what: str, first: object, second: object) -> None:
    generation = world.generation
    if what == "exit":
        world.exit(first, code=second)  # type: ignore[arg-type]
    elif what == "signal":
        world.exit(first, code=None, signal=second)  # type: ignore[arg-type]
    elif what == "failed":
        generation.said(first, Failed(kind="E", message="m", user_error=bool(second)))  # type: ignore[arg-type]
    elif what == "lost":
        generation.lost(str(first), "gone silent")
    elif what == "finish":
        world.finish(stopped=bool(first))
    elif what == "upload":
        world.upload(error=str(first))
    elif what == "leave":
        generation.leave(str(first), "told to end")
    elif what == "stop":
        generation.stop("stopped")
    elif what == "tick":
        world.now += float(first)  # type: ignore[arg-type]
        generation.tick()
    else:
        generation.cannot_start(
            str(first),
            CannotStart(job_id="j", generation=1, kind="E", message="m", busy=bool(second)),
        )


def test_a_stop_before_the_first_step_is_no_failure(world: World) -> None:
    world.generation.stop("stopped by the user")
    world.generation.said(1, Failed(kind="FleetError", message="stopped before training began"))
    assert world.stops()[2:] == [("a", "end"), ("b", "end")]
    world.exit(1, code=1)
    world.exit(0, 2, 3, code=None, signal=15, ordered=True)
    outcome = world.outcome()
    assert outcome.state is JobState.STOPPED
    assert "stopped by the user; ended without a new checkpoint" in outcome.reason


def test_ranks_that_save_before_they_are_ended_do_not_hide_the_cause(world: World) -> None:
    world.run()
    world.generation.lost("b", "silent")
    world.finish(stopped=True)
    world.exit(0, 1)
    world.upload()
    outcome = world.outcome()
    assert outcome.state is JobState.FAILED
    assert "node b is lost: silent" in outcome.reason
    assert "--auto-resume" in outcome.hint
