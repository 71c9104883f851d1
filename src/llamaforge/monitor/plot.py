"""The picture of a job: training loss, held-out loss, and the learning rate small below.

    python -m llamaforge.monitor.plot runs/JOB     # draws runs/JOB/loss.svg anew

matplotlib takes a second to import, so only drawing imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaforge.monitor import metrics
from llamaforge.monitor.metrics import evaluations, steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llamaforge.monitor.lines import Line

METRICS = "metrics.jsonl"
PICTURE = "loss.svg"
_RAW, _SMOOTH, _HELDOUT, _FAINT = "#9ecae1", "#08519c", "#d94801", "#737373"
_STYLE: Any = {
    "svg.hashsalt": "llamaforge",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
}


def draw(lines: list[Line], target: Path, *, title: str = "") -> None:
    """Draws the lines of `metrics.jsonl` into a file.

    Args:
        lines: what `monitor.metrics.read` returns.
        target: the picture; its suffix chooses the format (`.svg`, `.png`, `.pdf`).
        title: the job's name.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        _draw_loss(loss, lines)
        _draw_rate(rate, lines)
        rate.set_xlabel("step")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        metadata = {"Date": None} if target.suffix == ".svg" else {}
        figure.savefig(target, dpi=150, metadata=metadata)


def draw_folder(folder: Path) -> Path:
    """Draws a job's folder from its metrics.jsonl, and returns the picture's path."""
    target = folder / PICTURE
    draw(metrics.read(folder / METRICS), target, title=folder.resolve().name)
    return target


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Exponential moving average, free of the bias towards its start.

    Args:
        values: one number per step.
        span: steps over which a value's weight falls to about a third; 1 or less changes nothing.
    """
    decay = max(0.0, 1 - 1 / max(span, 1.0))
    total = weight = 0.0
    averages = []
    for value in values:
        total = decay * total + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        averages.append(total / weight)
    return averages


def summary(lines: list[Line]) -> str:
    """One line for a person: where the losses began and ended (training: smoothed)."""
    held = [line["heldout_loss"] for line in _held(lines)]
    trained = _smoothed([line["loss"] for line in _trained(lines)])
    parts = [
        f"{label} loss {values[0]:.3f} → {values[-1]:.3f}"
        for label, values in (("held-out", held), ("training", trained))
        if values
    ]
    return ", ".join(parts) or "no step was committed"


def _trained(lines: list[Line]) -> list[Line]:
    return [line for line in steps(lines) if line["loss"] is not None]


def _held(lines: list[Line]) -> list[Line]:
    return [line for line in evaluations(lines) if line["heldout_loss"] is not None]


def _smoothed(losses: list[float]) -> list[float]:
    """Smoothed over a twentieth of the job."""
    return smooth(losses, len(losses) / 20)


def _draw_loss(axes: Axes, lines: list[Line]) -> None:
    trained, held = _trained(lines), _held(lines)
    if trained:
        at = [line["step"] for line in trained]
        raw = [line["loss"] for line in trained]
        axes.plot(at, raw, color=_RAW, linewidth=0.9, marker="." if len(at) < 40 else "")
        axes.plot(at, _smoothed(raw), color=_SMOOTH, linewidth=2, label="training")
    if held:
        at = [line["step"] for line in held]
        values = [line["heldout_loss"] for line in held]
        axes.plot(at, values, color=_HELDOUT, marker="o", linewidth=1.2, label="held-out")
        for index in {0, len(held) - 1}:
            axes.annotate(
                f"{values[index]:.3f}",
                (at[index], values[index]),
                textcoords="offset points",
                xytext=(4, 7),
                color=_HELDOUT,
            )
    if trained or held:
        axes.legend(frameon=False)
    axes.margins(y=0.12)
    axes.set_ylabel("loss per trained token")
    axes.set_title(summary(lines), loc="left", fontsize=10, color=_FAINT)
    axes.grid(axis="y", color="#eeeeee")


def _draw_rate(axes: Axes, lines: list[Line]) -> None:
    trained = [line for line in steps(lines) if "lr" in line]
    axes.plot([line["step"] for line in trained], [line["lr"] for line in trained], color=_FAINT)
    axes.set_ylabel("learning rate", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


if __name__ == "__main__":
    print(draw_folder(Path(sys.argv[1])))
