"""When rank 0 saves, and that what it saves is the whole state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import make_job
from llamaforge.errors import IntegrityError
from llamaforge.train.exact.adamw import AdamW
from llamaforge.train.exact.layout import Layout
from llamaforge.train.saving import Saver
from llamaforge.train.state import State

JOB = make_job(save_steps=4, save_minutes=1.0)


class Told:
    """A reporter that keeps which steps were saved."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def metric(self, line: dict[str, Any]) -> None:
        raise AssertionError("saving measures nothing")

    def note(self, kind: str, text: str, **fields: Any) -> None:
        assert kind == "checkpoint"

    def checkpoint(self, step: int, path: Path) -> None:
        self.steps.append(step)


def make_state(shapes: tuple[int, ...] = (3, 5)) -> State:
    layout = Layout([(f"t{n}", torch.nn.Parameter(torch.zeros(n))) for n in shapes])
    return State(layout, AdamW(layout, layout.zeros(torch.float32), JOB.spec))


def train(state: State, steps: int) -> None:
    """Commits steps with a made-up gradient."""
    for step in range(state.cursor.step, state.cursor.step + steps):
        total = torch.arange(1, state.layout.total + 1, dtype=torch.int32) * (step + 1)
        state.optimizer.step(total, [3, 4], divisor=7.0, rate=1e-2)
        state.remember([0.5 + step, 0.0 if step % 2 else 2.0])
        state.cursor.commit((step, step + 1), tokens=9, generation=1, what=f"step {step}")


def test_saves_by_steps_and_by_minutes(tmp_path: Path) -> None:
    now = 0.0
    saver = Saver(JOB, tmp_path, Told(), clock=lambda: now)
    assert [step for step in range(1, 9) if saver.due(step)] == [4, 8]
    now = 61.0
    assert saver.due(5)
    saver.save(make_state())
    assert not saver.due(5), "a minute begins anew with every checkpoint"


@pytest.mark.parametrize(
    ("minutes", "cost", "pause"),
    [
        (10.0, 0.02, 60.0),  # cheap: every minute
        (10.0, 3.0, 300.0),  # one hundredth of the time
        (10.0, 30.0, 600.0),  # as asked, at the latest
        (0.5, 0.02, 30.0),
    ],
)
def test_the_cheaper_a_checkpoint_the_sooner_the_next(
    tmp_path: Path, minutes: float, cost: float, pause: float
) -> None:
    now = iter([0.0, 100.0, 100.0 + cost, *(100.0 + cost + pause + late for late in (-0.1, 0.1))])
    saver = Saver(make_job(save_minutes=minutes), tmp_path, Told(), clock=lambda: next(now))
    saver.save(make_state())
    assert not saver.due(1)
    assert saver.due(1)


def test_nothing_is_saved_by_time_where_that_is_turned_off(tmp_path: Path) -> None:
    now = 0.0
    saver = Saver(make_job(save_minutes=0.0), tmp_path, Told(), clock=lambda: now)
    now = 1e6
    assert not saver.due(1)


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    told, state = Told(), make_state()
    saver = Saver(JOB, tmp_path, told)
    train(state, 1)
    saver.save(state)
    saver.save(state)
    train(state, 1)
    saver.save(state)
    assert told.steps == [1, 2]


def test_a_state_that_was_saved_and_read_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    undisturbed, before, after = make_state(), make_state(), make_state()
    train(undisturbed, 9)
    train(before, 4)
    Saver(JOB, tmp_path, Told()).save(before)
    after.read(next(tmp_path.glob("step-*")))
    train(after, 5)
    assert after.weights_digest() == undisturbed.weights_digest()
    assert after.optimizer_digest() == undisturbed.optimizer_digest()
    assert after.maxima == undisturbed.maxima
    assert after.cursor.chain == undisturbed.cursor.chain
    assert after.optimizer.moments.beta2_power == undisturbed.optimizer.moments.beta2_power


def test_a_tensor_without_a_gradient_keeps_its_largest_value() -> None:
    state = make_state()
    train(state, 2)
    assert state.maxima == [1.5, 2.0]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Saver(JOB, tmp_path, Told()).save(make_state())
    with pytest.raises(IntegrityError, match="not those of this job"):
        make_state((3, 6)).read(next(tmp_path.glob("step-*")))
