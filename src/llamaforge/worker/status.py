"""The one line that says what a worker is doing, for `systemctl status` and its health page."""

from __future__ import annotations

import msgspec

from llamaforge.spec.ranks import Progress


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What the line is made from."""

    leaving: str = ""
    """Why the worker is ending; empty while it isn't."""
    trouble: str = ""
    """Why it can't work yet."""
    busy: str = ""
    """What it is busy with."""
    fetching: str = ""
    """How far it is with fetching a job's bundle."""
    progress: Progress | None = None
    """Of the job that it is busy with, once its ranks have met."""
    classic: str = ""
    """Where it watches for a torchrun: HOST:PORT."""
    coordinator: str = ""
    """What its link said last."""
    connected: bool = False
    """Whether the link stands."""
    known: bool = False
    """Whether it has been told of any coordinator."""
    unconfined: bool = False
    """Whether ranks can't be kept from the node's secrets here."""


def line(now: Situation) -> str:
    """One line, the most important thing alone."""
    if now.leaving:
        return f"leaving: {now.leaving}"
    if now.trouble:
        return f"not ready: {now.trouble}"
    if now.progress is not None:
        return of_progress(now.progress)
    if now.busy:
        return f"{now.busy}: {now.fetching or 'preparing'}"
    return f"{_waiting(now)}; ranks run unconfined" if now.unconfined else _waiting(now)


def of_progress(word: Progress) -> str:
    """`job alpaca-3f2a step 120/960, 412 tok/s, 2 nodes`."""
    rate = f", {word.tokens_per_second:,.0f} tok/s" if word.tokens_per_second else ""
    nodes = "1 node" if word.nodes == 1 else f"{word.nodes} nodes"
    return f"job {word.job} step {word.step}/{word.total_steps}{rate}, {nodes}"


def _waiting(now: Situation) -> str:
    if now.classic and not (now.known or now.connected):
        return f"waiting for {now.classic}"
    link = now.coordinator if now.coordinator.startswith("waiting") else ""
    if now.connected:
        link = f"waiting for a job; {now.coordinator}"
    link = link or "waiting for its coordinator"
    return f"{link}; also waiting for torchrun at {now.classic}" if now.classic else link
