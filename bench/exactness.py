"""What exactness costs: our integer sum and update against a plain fp32 sum and torch's AdamW.

    .venv/bin/python bench/exactness.py [--steps 15] [--threads 1]

Slice gradients are added as integers, and the update is specified to the bit, so that a result
does not depend on who computed what. This measures the price: the work of one step after its
backward passes (eight slice gradients in bf16 added up, the norm, clipping, AdamW), ours and the
way without any such promise (`add_` into fp32, `clip_grad_norm_`, AdamW with `fused=True`, which
is PyTorch's fastest on a CPU). Both sides take turns in one process on the same gradients; medians
count. Two sizes: LoRA of rank 8 on all linear layers of a 125M Llama (168 small tensors), and full
fine-tuning of 30 million parameters. The last line is one JSON object; its `ours`, `peer` and
`ratio` are those of LoRA, the default of a job, and `detail` has both. Under a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from llamaforge.spec.job import JobSpec
from llamaforge.train.exact.adamw import AdamW, clipping
from llamaforge.train.exact.fixed import SliceSum, exponents, squared_norm
from llamaforge.train.exact.layout import Layout
from llamaforge.train.slice_pass import SlicePass

SLICES = 8
TRAINED = 1_000
"""Trained tokens of the step."""
RATE = 2e-4
SPEC = JobSpec(model="none", dataset="none", weight_decay=0.01)

Shapes = list[tuple[int, ...]]


def lora_of_125m() -> Shapes:
    """A and B of rank 8 for seven linear modules in each of twelve layers."""
    hidden, wide, rank = 768, 2048, 8
    linears = [(hidden, hidden)] * 4 + [(hidden, wide)] * 2 + [(wide, hidden)]
    return [shape for _ in range(12) for i, o in linears for shape in ((rank, i), (o, rank))]


def full_30m() -> Shapes:
    """Embedding, head and eight layers of a Llama."""
    hidden, wide = 512, 1376
    layer = [(hidden, hidden)] * 4 + [(wide, hidden)] * 2 + [(hidden, wide), (hidden,), (hidden,)]
    vocabulary = (4_000, hidden)
    return [vocabulary, *(layer * 8), (hidden,), vocabulary]


def gradients(shapes: Shapes) -> list[torch.Tensor]:
    """Flat bf16 gradients of a step's slices; each tensor has a magnitude of its own."""
    generator = torch.Generator().manual_seed(0)
    sizes = [torch.Size(shape).numel() for shape in shapes]
    magnitudes = torch.exp(torch.randn(len(sizes), generator=generator))
    each = torch.repeat_interleave(magnitudes, torch.tensor(sizes))
    return [
        (torch.randn(len(each), generator=generator) * each).to(torch.bfloat16)
        for _ in range(SLICES)
    ]


def ours(shapes: Shapes, slices: Sequence[torch.Tensor]) -> Callable[[], None]:
    """A step as the engine does it."""
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16)) for shape in shapes]
    layout = Layout([(str(at), parameter) for at, parameter in enumerate(parameters)])
    passes = [SlicePass(torch.nn.Module(), layout, parameters) for _ in slices]
    for each, gradient in zip(passes, slices, strict=True):
        each.gradient.copy_(gradient)
    local, optimizer = SliceSum(layout), AdamW(layout, layout.zeros(torch.float32), SPEC)
    maxima = [0.0] * len(layout)

    def step() -> None:
        nonlocal maxima
        local.begin(exponents(maxima, SLICES), SLICES)
        for each in passes:
            local.add(each.gradient, each.maxima())
        maxima = local.maxima
        scales = exponents(maxima, SLICES)
        local.settle(scales)
        norm = squared_norm(local.total, layout, scales) ** 0.5 / TRAINED
        divisor = TRAINED / clipping(norm, SPEC.max_grad_norm)
        optimizer.step(local.total, scales, divisor=divisor, rate=RATE)

    return step


def peer(shapes: Shapes, slices: Sequence[torch.Tensor]) -> Callable[[], None]:
    """The same step without any promise about its bits."""
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    total = torch.zeros(sum(parameter.numel() for parameter in parameters))
    views = total.split([parameter.numel() for parameter in parameters])
    for parameter, view in zip(parameters, views, strict=True):
        parameter.grad = view.view_as(parameter)
    optimizer = torch.optim.AdamW(
        parameters, lr=RATE, weight_decay=SPEC.weight_decay, eps=SPEC.adam_eps, fused=True
    )

    def step() -> None:
        total.zero_()
        for gradient in slices:
            total.add_(gradient.float())  # faster than to add bf16 to fp32
        total.div_(TRAINED)
        torch.nn.utils.clip_grad_norm_(parameters, SPEC.max_grad_norm)
        optimizer.step()

    return step


def compare(shapes: Shapes, steps: int) -> dict[str, float]:
    """Median milliseconds of both sides, which take turns; the first turn of each is left out."""
    slices = gradients(shapes)
    sides = {"ours": ours(shapes, slices), "peer": peer(shapes, slices)}
    seen: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(steps + 1):
        for side, step in sides.items():
            begin = time.perf_counter()
            step()
            if turn:
                seen[side].append((time.perf_counter() - begin) * 1e3)
    medians = {side: round(statistics.median(times), 2) for side, times in seen.items()}
    return {**medians, "ratio": round(medians["ours"] / medians["peer"], 2)}


def main() -> None:
    """Measures both sizes and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    detail = {}
    for name, shapes in (("lora_125m", lora_of_125m()), ("full_30m", full_30m())):
        detail[name] = compare(shapes, options.steps)
        print(f"{name}: {detail[name]}", flush=True)
    said = {"name": "exactness", **detail["lora_125m"], "unit": "ms per step"}
    print(json.dumps({**said, "detail": {**detail, "slices": SLICES, "threads": options.threads}}))


if __name__ == "__main__":
    main()
