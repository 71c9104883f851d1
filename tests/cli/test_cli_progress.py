"""Views: plain lines are few and telling, JSON is the stream, the bar shows the tally."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from cli.updates import step, stream
from llamaforge.cli.progress import (
    EVERY,
    JsonView,
    LineView,
    LiveView,
    View,
    sentence,
    status_line,
    view_for,
)
from llamaforge.cli.tally import Tally
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import LogLine, StateChanged


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def feed(view: View, clock: Clock | None = None, *, steps: int = 4, pace: float = 0.0) -> None:
    tally = Tally(steps, clock=clock or Clock())
    with view:
        view.begin(tally)
        for update in stream("runs/x", steps):
            tally.take(update)
            if clock:
                clock.now += pace
            view.show(update)


def test_lines_tell_what_happens() -> None:
    out = io.StringIO()
    feed(LineView(out, clock=Clock()))
    lines = out.getvalue().splitlines()
    assert lines[0] == "starting: 3 ranks on 2 nodes"
    assert lines[1] == "generation 1: big (2 ranks), small (1 rank)"
    assert "guarantee: same numbers" in lines
    assert "step 0: held-out loss 2.5000" in lines
    assert any(
        line.startswith("step 4/4  loss 0.7500  200 tok/s") and "big 75 %, small 25 %" in line
        for line in lines
    )
    assert not any("hello from a rank" in line for line in lines)


def test_lines_are_few() -> None:
    clock, out = Clock(), io.StringIO()
    feed(LineView(out, clock=clock), clock, steps=100, pace=EVERY / 10)
    shown = [line for line in out.getvalue().splitlines() if line.startswith("step ")]
    assert 10 <= len(shown) <= 15
    assert any(line.startswith("step 100/100") for line in shown), "the last step is always shown"


def test_verbose_shows_what_ranks_print() -> None:
    out = io.StringIO()
    feed(LineView(out, verbose=True, clock=Clock()))
    assert "big rank 0: hello from a rank" in out.getvalue()


def test_json_is_the_stream_itself() -> None:
    out = io.StringIO()
    view = JsonView(out)
    feed(view)
    view.say("a remark")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    types = [line["type"] for line in lines]
    assert types[:3] == ["state", "generation", "state"]
    assert types[-2:] == ["ended", "remark"]
    assert types.count("metric") == 6


def test_the_bar_shows_steps_and_lines_scroll_above() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    tally = Tally(8, clock=Clock())
    view = LiveView(console)
    with view:
        view.moved("upload", 1_000_000, 2_000_000)
        view.begin(tally)
        for update in [StateChanged(state=JobState.RUNNING), *(step(n) for n in (1, 2))]:
            tally.take(update)
            view.show(update)
        view.say("something [odd]")
        view._bars.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 2/8" in shown
    assert "something [odd]" in shown


def test_the_view_suits_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    assert isinstance(view_for(as_json=True, out=out), JsonView)
    assert isinstance(view_for(as_json=False, out=out), LineView)
    monkeypatch.setattr(out, "isatty", lambda: True)
    assert isinstance(view_for(as_json=False, out=out), LiveView)


def test_what_is_not_known_is_left_out() -> None:
    assert status_line(Tally(10)) == "step 0/10"
    tally = Tally(10)
    tally.take(step(1, memory=410_000_000))
    assert status_line(tally).endswith("410 MB")


def test_silent_updates_have_no_sentence() -> None:
    log = LogLine(node="n", rank=0, text="x")
    assert sentence(log, verbose=False) == ""
    assert sentence(StateChanged(state=JobState.RUNNING), verbose=True) == ""
    queued = StateChanged(state=JobState.QUEUED, reason="no worker waits")
    assert sentence(queued, verbose=False) == "queued: no worker waits"
