"""What a commit leaves behind, and how it is kept in a checkpoint.

The state is all that a run needs to go on with the same bits: trained weights and moments in
fp32, the scales' maxima, and the cursor. World size is not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file

from llamaforge.errors import IntegrityError
from llamaforge.spec import chain
from llamaforge.spec.job import Job
from llamaforge.train.exact import digest
from llamaforge.train.exact.adamw import AdamW
from llamaforge.train.exact.layout import Layout

WEIGHTS = "trained.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


class Cursor(msgspec.Struct, kw_only=True):
    """Where a job stands. Counts are of commits, over all generations."""

    step: int = 0
    """Committed steps."""
    rows: int = 0
    """Rows trained."""
    tokens: int = 0
    """All tokens of those rows."""
    redone: int = 0
    """Attempts that overflowed and were computed again."""
    order: str = chain.GENESIS
    """SHA-256 over the row numbers of all committed steps, in order."""
    chain: str = chain.GENESIS
    """The last link."""
    beta1_power: float = 1.0
    beta2_power: float = 1.0
    heldout_before: float | None = None
    """Held-out loss before the first step."""
    generations: list[dict[str, Any]] = []
    """Who computed: generation, ranks, nodes, first step."""

    def commit(self, rows: tuple[int, ...], *, tokens: int, generation: int, what: str) -> None:
        """Counts one committed step."""
        self.step += 1
        self.rows += len(rows)
        self.tokens += tokens
        listed = ",".join(map(str, rows))
        self.order = hashlib.sha256(f"{self.order} {listed}".encode()).hexdigest()
        self.chain = chain.link(self.chain, generation=generation, step=self.step, what=what)


class State:
    """Trained weights, moments, maxima and cursor of one rank; the same on every rank.

    Args:
        layout: the trained tensors.
        optimizer: holds weights and moments.
    """

    def __init__(self, layout: Layout, optimizer: AdamW) -> None:
        self.layout = layout
        self.optimizer = optimizer
        self.cursor = Cursor()
        self.maxima = [0.0] * len(layout)
        """Largest slice value of each tensor in the last committed step that had one."""

    def remember(self, maxima: list[float]) -> None:
        """Takes over a committed step's maxima; a tensor without gradient keeps its old one."""
        self.maxima = [new or old for old, new in zip(self.maxima, maxima, strict=True)]

    def weights_digest(self) -> str:
        """SHA-256 of the trained weights in fp32."""
        return digest.of_tensors(self.layout.named_views(self.optimizer.master))

    def optimizer_digest(self) -> str:
        """SHA-256 of both moments."""
        return digest.of_tensors(self._moments())

    def write(self, folder: Path) -> None:
        """Writes the tensors into a checkpoint folder."""
        save_file(self.layout.named_views(self.optimizer.master), folder / WEIGHTS)
        extra = {"maxima": torch.tensor(self.maxima, dtype=torch.float32)}
        save_file({**self._moments(), **extra}, folder / OPTIMIZER)

    def facts(self, job: Job) -> dict[str, Any]:
        """What goes into the checkpoint's state.json."""
        moments = self.optimizer.moments
        self.cursor.beta1_power = moments.beta1_power
        self.cursor.beta2_power = moments.beta2_power
        return {"job": msgspec.to_builtins(job), "cursor": msgspec.to_builtins(self.cursor)}

    def read(self, folder: Path) -> None:
        """Takes everything over from a verified checkpoint folder.

        Raises:
            IntegrityError: its tensors are not those of this job.
        """
        saved = msgspec.json.decode((folder / STATE).read_bytes())
        self.cursor = msgspec.convert(saved["cursor"], Cursor)
        _copy(load_file(folder / WEIGHTS), self.layout.named_views(self.optimizer.master), folder)
        rest = load_file(folder / OPTIMIZER)
        self.maxima = rest.pop("maxima").tolist()
        _copy(rest, self._moments(), folder)
        moments = self.optimizer.moments
        moments.beta1_power = self.cursor.beta1_power
        moments.beta2_power = self.cursor.beta2_power

    def _moments(self) -> dict[str, torch.Tensor]:
        moments = self.optimizer.moments
        both = {"first": moments.first, "second": moments.second}
        return {
            f"{kind}.{name}": view
            for kind, flat in both.items()
            for name, view in self.layout.named_views(flat).items()
        }


def _copy(
    source: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor], folder: Path
) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in source.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in into.items()}:
        raise IntegrityError(f"{folder}: the checkpoint's tensors are not those of this job")
    for name, tensor in into.items():
        tensor.copy_(source[name])
