"""`logs` and `events`: history, filters, and what comes while a coordinator is started again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from cli.fake_fleet import NOW, FakeFleet, a_job, a_node
from cli.updates import NODES, ended, step
from llamaforge.cli.events import line
from llamaforge.cli.main import run
from llamaforge.spec.states import JobState
from llamaforge.wire.api import Event
from llamaforge.wire.updates import GenerationStarted, LogLine

Output = pytest.CaptureFixture[str]
PATIENCE = 20.0


def log(number: int, rank: int = 0) -> LogLine:
    return LogLine(node="big" if rank < 2 else "small", rank=rank, text=f"line {number}\n")


@pytest.fixture
def running(fleet: FakeFleet) -> FakeFleet:
    """A job with ten lines of three ranks, and others between them."""
    fleet.jobs["job-1"] = a_job("job-1")
    fleet.streams["job-1"] = [GenerationStarted(generation=1, world_size=3, nodes=NODES)]
    for number in range(10):
        fleet.streams["job-1"] += [log(number, number % 3), step(number + 1)]
    return fleet


def typed(fleet: FakeFleet, *args: str) -> int:
    return run([*args, "--fleet", str(fleet.file)])


def test_a_job_that_has_printed_nothing_says_so(fleet: FakeFleet, capsys: Output) -> None:
    fleet.jobs["job-1"] = a_job("job-1", state=JobState.DONE)
    fleet.streams["job-1"] = [ended("/x")]
    assert typed(fleet, "logs", "job-1") == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no line of job job-1 so far" in shown.err


def test_all_lines_with_node_and_rank(running: FakeFleet, capsys: Output) -> None:
    assert typed(running, "logs", "job-1") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["big/0| line 0", "big/1| line 1", "small/2| line 2"]
    assert len(shown) == 10


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--rank", "2"], [2, 5, 8]),
        (["--node", "big", "-n", "2"], [7, 9]),
        (["-n", "0"], []),
        (["-n", "99"], list(range(10))),
    ],
)
def test_filters(running: FakeFleet, capsys: Output, args: list[str], expected: list[int]) -> None:
    assert typed(running, "logs", "job-1", *args, "--json") == 0
    said = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [s["text"] for s in said] == [f"line {n}\n" for n in expected]
    assert all(s["type"] == "log" for s in said)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--rank", "3"], "its ranks are 0 to 2"),
        (["--node", "bog"], "it ran on big, small"),
        (["--rank", "x"], "'x' is not a valid integer"),
    ],
)
def test_who_was_never_there(
    running: FakeFleet, capsys: Output, args: list[str], told: str
) -> None:
    assert typed(running, "logs", "job-1", *args) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


def test_a_job_that_has_not_begun_has_no_lines(fleet: FakeFleet, capsys: Output) -> None:
    fleet.jobs["new"] = a_job("new", JobState.QUEUED)
    fleet.streams["new"] = []
    assert typed(fleet, "logs", "new", "--rank", "7") == 0
    assert capsys.readouterr().out == ""


def in_background(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def followed(fleet: FakeFleet, kinds: str) -> bool:
    return any("stream" in path and kinds in path for _, path, _ in fleet.asked)


def test_follow_through_a_restart_loses_and_doubles_nothing(
    running: FakeFleet, capsys: Output
) -> None:
    updates = running.streams["job-1"]

    def live() -> None:
        until(lambda: followed(running, "kinds="))
        updates.append(log(10))
        time.sleep(0.3)
        running.stop()
        updates.extend([step(11), log(11), log(12, 2)])
        time.sleep(0.3)
        running.asked.clear()
        running.start()
        until(lambda: followed(running, "kinds="))
        updates.extend([log(13), ended("/x")])

    thread = in_background(live)
    assert typed(running, "logs", "job-1", "-f", "-n", "1") == 0
    thread.join(PATIENCE)
    said = capsys.readouterr()
    assert [text.split("| ")[1] for text in said.out.splitlines()] == [
        f"line {n}" for n in range(9, 14)
    ]
    assert said.err.splitlines() == [
        "the coordinator is away; waiting",
        "the coordinator is back",
        "job job-1 is done",
    ]


def test_follow_goes_on_past_the_end_of_a_job_that_was_resumed(
    running: FakeFleet, capsys: Output
) -> None:
    stopped = ended("/x", JobState.STOPPED)
    running.streams["job-1"] += [stopped, log(20), ended("/x")]
    assert typed(running, "logs", "job-1", "-f") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "big/0| line 20"
    assert said.err == "job job-1 is done\n"


# ── events ────────────────────────────────────────────────────────────────────────────────────


def event(number: int, kind: str = "job", subject: str = "job-1", **more: str) -> Event:
    plain = {"number": number, "time": NOW, "kind": kind, "subject": subject, "what": "running"}
    return Event(**{**plain, **more})


@pytest.fixture
def eventful(fleet: FakeFleet) -> FakeFleet:
    fleet.jobs["job-1"] = a_job("job-1")
    fleet.nodes = [a_node("box1"), a_node("box2")]
    fleet.events = [event(n, "node", "box1") if n % 3 else event(n) for n in range(1, 61)]
    return fleet


def numbers(output: str) -> list[int]:
    return [json.loads(text)["number"] for text in output.splitlines()]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], list(range(11, 61))),
        (["--all"], list(range(1, 61))),
        (["-n", "2"], [59, 60]),
        (["--job", "job", "-n", "2"], [57, 60]),
        (["--node", "box1", "-n", "1"], [59]),
        (["--node", "box2"], []),
    ],
)
def test_events(eventful: FakeFleet, capsys: Output, args: list[str], expected: list[int]) -> None:
    assert typed(eventful, "events", *args, "--json") == 0
    assert numbers(capsys.readouterr().out) == expected


def test_events_are_followed_through_a_restart(eventful: FakeFleet, capsys: Output) -> None:
    """The last event is one that the test takes for the end."""

    def live() -> None:
        until(lambda: any("follow=1" in path for _, path, _ in eventful.asked))
        eventful.events.append(event(61))
        time.sleep(0.3)
        eventful.stop()
        eventful.events.append(event(62))
        eventful.start()
        time.sleep(0.3)
        eventful.events.append(event(63))
        time.sleep(0.5)
        raise_interrupt()

    def raise_interrupt() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    thread = in_background(live)
    assert typed(eventful, "events", "-f", "-n", "1", "--json") == 130
    thread.join(PATIENCE)
    assert numbers(capsys.readouterr().out) == [60, 61, 62, 63]


def test_wrong_events(eventful: FakeFleet, capsys: Output) -> None:
    assert typed(eventful, "events", "--job", "x", "--node", "y") == 2
    assert "can't be given together" in capsys.readouterr().err
    assert typed(eventful, "events", "--node", "bax1") == 2
    assert "did you mean box1" in capsys.readouterr().err


def test_an_event_for_a_person() -> None:
    said = line(event(1, what="failed", reason="rank 1: gone\nlast lines", by="local:anna"))
    assert said.endswith("  job job-1  failed: rank 1: gone (by local:anna)")
    assert line(event(2, "coordinator", "coordinator", what="started")).endswith(
        "  coordinator  started"
    )
