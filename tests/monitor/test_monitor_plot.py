from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.monitor.plot import draw, smooth, summary

LINES = [
    {"step": 0, "heldout_loss": 3.25},
    *({"step": step, "loss": 3.0 / step, "lr": 1e-4 / step} for step in range(1, 60)),
    {"step": 59, "heldout_loss": 0.125},
]


def test_the_picture_is_svg_and_the_same_every_time(tmp_path):
    draw(LINES, tmp_path / "a.svg", title="job-1")
    draw(LINES, tmp_path / "b.svg", title="job-1")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_suffix_chooses_the_format(tmp_path):
    draw(LINES, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"step": 0, "heldout_loss": 1.0}],
        [{"step": 1, "loss": 1.0}],
        [{"step": 1, "loss": None, "lr": 0.0}, {"step": 1, "heldout_loss": None}],
    ],
)
def test_jobs_that_hardly_began_have_a_picture_too(tmp_path, lines):
    draw(lines, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_the_summary_says_where_losses_began_and_ended():
    lines = [{"step": 0, "heldout_loss": 3.25}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    assert summary(lines) == "held-out loss 3.250 → 3.250, training loss 2.000 → 1.500"
    assert summary([]) == "no step was committed"


losses = st.lists(st.floats(0, 100), min_size=1, max_size=50)


@given(losses, st.floats(0, 40))
def test_smoothing_stays_between_the_extremes(values, span):
    smoothed = smooth(values, span)
    assert len(smoothed) == len(values)
    assert smoothed[0] == pytest.approx(values[0])
    assert min(values) - 1e-6 <= min(smoothed)
    assert max(smoothed) <= max(values) + 1e-6


@given(losses)
def test_a_span_of_one_changes_nothing(values):
    assert smooth(values, 1) == pytest.approx(values)


def test_smoothing_takes_noise_away():
    noisy = [1.0, 3.0] * 50
    assert max(smooth(noisy, 20)[60:]) - min(smooth(noisy, 20)[60:]) < 0.2


def test_importing_does_not_import_matplotlib():
    program = "import sys, llamaforge.monitor.plot; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
