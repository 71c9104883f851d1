"""The algorithm of a job, top down: load, agree, train slice by slice, commit, save, finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaforge.spec.job import Job
    from llamaforge.train.group import Group
    from llamaforge.train.place import Folders, Place
    from llamaforge.train.report import Reporter


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a rank's part in a job ended."""

    proof: dict[str, Any]
    stopped: bool
    """True when it left early, after a checkpoint, because it was told to."""


def train(
    job: Job,
    *,
    place: Place,
    folders: Folders,
    group: Group,
    reporter: Reporter,
    stop: Callable[[], str | None],
) -> Outcome:
    """Trains one rank's share of a job from start to end.

    Args:
        job: what to train.
        place: who this rank is.
        folders: where its files are.
        group: the formed process group of this generation.
        reporter: where to say what happens.
        stop: asked at every step boundary; a reason to leave early, or None.

    Returns:
        The proof and whether the job was stopped early.

    Raises:
        LlamaForgeError: with a message for a person.
    """
    raise NotImplementedError
