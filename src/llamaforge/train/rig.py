"""Puts a rank's parts together: model, tokens, layout, optimizer, state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from llamaforge.bundle.digest import of_file
from llamaforge.data.store import Rows
from llamaforge.spec.job import Job
from llamaforge.train import isolation, model
from llamaforge.train.diagnose import Diagnosis
from llamaforge.train.evaluate import HeldOut
from llamaforge.train.exact.adamw import AdamW
from llamaforge.train.exact.layout import Layout
from llamaforge.train.group import Group
from llamaforge.train.place import Folders
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.tokenizer import job_cache_key, load_encoder
from llamaforge.train.rows.tokens import Encoder
from llamaforge.train.slice_pass import SlicePass
from llamaforge.train.state import State
from llamaforge.train.step import StepRunner
from llamaforge.train.work import Planner


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Everything one rank computes with."""

    model: Any
    """The model in training: a peft model, or the plain one."""
    encoder: Encoder
    feed: Feed
    planner: Planner
    held_out: HeldOut | None
    layout: Layout
    parameters: list[torch.nn.Parameter]
    passes: SlicePass
    optimizer: AdamW
    state: State
    runner: StepRunner
    close: Callable[[], None]
    """Ends the background tokeniser."""

    def publish(self) -> None:
        """Rounds the fp32 weights into the model's own precision."""
        with torch.no_grad():
            views = self.layout.views(self.optimizer.master)
            for parameter, view in zip(self.parameters, views, strict=True):
                parameter.copy_(view)


def assemble(job: Job, folders: Folders, group: Group) -> Rig:
    """Loads the model and the rows, and makes all parts of a rank."""
    spec = job.spec
    encoder = load_encoder(folders.bundle, spec)
    network = model.make_trainable(model.load(folders.bundle / "model", spec.precision), spec)
    named = model.trained(network)
    layout = Layout(named)
    parameters = [parameter for _, parameter in named]
    passes = SlicePass(network, layout, parameters)
    passes.packed = isolation.rows_stay_apart(passes, network.config.vocab_size)
    master = layout.zeros(torch.float32)
    with torch.no_grad():
        for view, parameter in zip(layout.views(master), parameters, strict=True):
            view.copy_(parameter)
    optimizer = AdamW(layout, master, spec)
    feed = _feed(job, folders, encoder, "train")
    held = _feed(job, folders, encoder, "heldout") if job.heldout_rows else None
    return Rig(
        model=network,
        encoder=encoder,
        feed=feed,
        planner=Planner(job, feed),
        held_out=HeldOut(held, job.heldout_rows, spec.slice_tokens) if held else None,
        layout=layout,
        parameters=parameters,
        passes=passes,
        optimizer=optimizer,
        state=State(layout, optimizer),
        runner=StepRunner(
            group,
            layout,
            passes,
            seed=spec.seed,
            diagnose=Diagnosis(layout, passes, feed, spec.seed),
        ),
        close=lambda: [part.close() for part in (feed, held) if part] and None,
    )


def _feed(job: Job, folders: Folders, encoder: Encoder, part: str) -> Feed:
    source = folders.bundle / "data" / f"{part}.jsonl"
    key = job_cache_key(folders.bundle, job.spec, of_file(source))
    return Feed(Rows(source), encoder, folder=folders.cache, key=key)
