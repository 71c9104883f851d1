"""One slice through the model: forward, loss, and the gradient in a flat vector.

The loss is the *sum* over the trained tokens, in fp32, of logits that are computed only where a
token is trained. Dividing by the step's tokens happens once, after the sum over all slices.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from llamaforge.train import attention
from llamaforge.train.exact.layout import Layout
from llamaforge.train.rows.tokens import Tokens

LOSS_BITS = 24
"""Losses are added across slices as integers too, in units of 2^-24."""

_PIECE = 1 << 18
"""Elements that one search for the largest value looks at: they fit a core's cache."""


@dataclass(frozen=True)
class SliceLoss:
    """What one slice gave besides its gradient."""

    loss: float
    """Sum of the token losses; NaN or infinite when the pass broke."""
    trained: int
    """Trained tokens."""
    tokens: int
    """All tokens of the slice."""

    @property
    def fixed(self) -> int:
        """The loss in units of 2^-24, for sums that don't depend on order."""
        return round(math.ldexp(self.loss, LOSS_BITS))


class SlicePass:
    """Runs slices through a model.

    Args:
        model: the model to train.
        layout: its trained tensors.
        parameters: the same tensors, as parameters, in the layout's order.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        layout: Layout,
        parameters: Sequence[torch.nn.Parameter],
    ) -> None:
        self._model = model
        self._device = parameters[0].device
        self.gradient = layout.zeros(parameters[0].dtype)
        """The last slice's gradient, flat `[layout.total]`, in the precision of the pass."""
        for parameter, view in zip(parameters, layout.views(self.gradient), strict=True):
            parameter.grad = view
        pieces = [view.view(-1).split(_PIECE) for view in layout.views(self.gradient)]
        self._pieces = [piece for of_tensor in pieces for piece in of_tensor]
        self._pieces_per_tensor = [len(of_tensor) for of_tensor in pieces]
        model.eval()  # a new peft model says that it trains while its base says that it doesn't
        self.packed = True
        """Whether rows go through the model together; see `train.isolation`."""

    def train(self, rows: Sequence[Tokens], *, seed: tuple[int, int, int]) -> SliceLoss:
        """Forward and backward of one slice; leaves its gradient in `gradient`.

        Args:
            rows: the slice's rows.
            seed: (job seed, step, slice): keys dropout, so that it is the same wherever the
                slice is computed.
        """
        self._set_mode(training=True)
        self.gradient.zero_()
        self._seed(_key(seed))
        result = SliceLoss(0.0, 0, 0)
        for group in self._groups(rows):
            loss, count = self._loss(group)
            with attention.row_lengths([len(row.ids) for row in group]):
                loss.backward()
            result = _plus(result, SliceLoss(loss.item(), count, sum(len(r.ids) for r in group)))
        return result

    @torch.no_grad()
    def evaluate(self, rows: Sequence[Tokens]) -> SliceLoss:
        """Forward of one slice without dropout and without a gradient."""
        self._set_mode(training=False)
        result = SliceLoss(0.0, 0, 0)
        for group in self._groups(rows):
            loss, count = self._loss(group)
            result = _plus(result, SliceLoss(loss.item(), count, sum(len(r.ids) for r in group)))
        return result

    def maxima(self) -> list[float]:
        """Largest absolute value of the last gradient, per tensor; NaN where one is not a number.

        Exact, and the same in every order. By smallest and largest value, because PyTorch's
        infinity norm takes thirty times as long on a CPU.
        """
        ends = [torch.aminmax(piece) for piece in self._pieces]
        lowest, highest = (torch.stack(side) for side in zip(*ends, strict=True))
        largest = torch.maximum(-lowest, highest).float()
        if len(self._pieces) == len(self._pieces_per_tensor):
            return largest.tolist()
        return [part.max().item() for part in largest.split(self._pieces_per_tensor)]

    def logits(self, rows: Sequence[Tokens], keep: torch.Tensor) -> torch.Tensor:
        """Logits at the token positions `keep`, `[len(keep), vocabulary]`, in fp32."""
        ids = torch.cat([torch.from_numpy(row.ids) for row in rows]).long()
        positions = torch.cat([torch.arange(len(row.ids)) for row in rows])
        with attention.row_lengths([len(row.ids) for row in rows]):
            output = self._model(
                input_ids=ids.unsqueeze(0).to(self._device),
                position_ids=positions.unsqueeze(0).to(self._device),
                use_cache=False,
                logits_to_keep=keep.to(self._device),
            )
        return output.logits[0].float()

    def _set_mode(self, *, training: bool) -> None:
        """Changes between training and evaluation; visiting every module takes a while."""
        if self._model.training != training:
            self._model.train(training)

    def _seed(self, key: int) -> None:
        """Seeds what dropout draws from. `torch.manual_seed` would also note, with a traceback,
        that GPUs that are never used want this seed, and takes a hundred times as long."""
        torch.default_generator.manual_seed(key)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(key)

    def _groups(self, rows: Sequence[Tokens]) -> list[Sequence[Tokens]]:
        return [rows] if self.packed else [[row] for row in rows if row.trained[1:].any()]

    def _loss(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, int]:
        keep, targets = _targets(rows)
        logits = self.logits(rows, keep)
        return cross_entropy(logits, targets.to(self._device), reduction="sum"), len(keep)


def _targets(rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions whose next token is trained, and those tokens; both `[trained]`.

    A row's first token is never a target: nothing of its own row stands before it.
    """
    keep, targets, start = [], [], 0
    for row in rows:
        where = torch.from_numpy(row.trained[1:]).nonzero().squeeze(1)
        keep.append(where + start)
        targets.append(torch.from_numpy(row.ids[1:]).long()[where])
        start += len(row.ids)
    return torch.cat(keep), torch.cat(targets)


def _key(seed: tuple[int, int, int]) -> int:
    """A 63-bit seed of the random generator from (seed, step, slice)."""
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _plus(a: SliceLoss, b: SliceLoss) -> SliceLoss:
    return SliceLoss(a.loss + b.loss, a.trained + b.trained, a.tokens + b.tokens)
