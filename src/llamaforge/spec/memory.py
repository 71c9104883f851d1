"""How much memory one rank of a job needs, from the model's config.json alone.

With P parameters, T of them trained (LoRA: r·(in + out) for every adapted linear layer), w bytes
per number in the job's precision (bf16: 2, fp32: 4), a slice of S = max(slice_tokens, max_length)
tokens, L layers, hidden size h, q and k numbers per token in all query and key/value heads,
intermediate size f, and V tokens in the vocabulary:

    weights      w·P, and w·T for adapters
    trained      4·T                    the fp32 master copy
    optimizer    8·T                    two fp32 moments
    gradients    (w + 4 + 4)·T          one slice's gradient, two int32 sums (own, reduced)
                 + min(2^30, w·T·rows)  the first step's slices, which wait for their scale
    activations  S·(L·a + w·L·h·[checkpointing] + V·(w + 12))

where a layer keeps, for each token, until its backward pass,

    a = 8·h + 2·w·h      two norms' fp32 inputs and their outputs
      + w·(2·q + 2·k)    query, key, value and the attention's result, all saved by attention
      + 4·w·f            gate, its activation, up, and their product
      + 2·w·h            full fine-tuning: norms keep their normalised input too
      + w·m·r            LoRA: the inner value of m adapters

With gradient checkpointing only one layer's `a` is alive, and every layer's input. Logits exist
only for trained tokens; here all S count, as an upper bound: in precision, in fp32, their softmax
and its gradient. `runtime` is what a rank needs before it has loaded anything.

The rows of a step bound its slices. Weights are mapped from the file where its precision is the
job's, so ranks of one node may share them; this counts them for each. Where it is not, the file's
pages show in a process's resident size too, but the system takes them back when it needs them.

Measured on one rank, 87 million parameters, 8 rows of 500 tokens a step (peak resident MB, and
the estimate): LoRA bf16 900 (888), LoRA fp32 from a bf16 file 1,434 (1,205, and 175 of file
pages), LoRA with slices of 2,048 tokens 1,941 (1,707), the same with checkpointing 1,227 (1,189),
full bf16 3,875 (3,876), full fp32 4,463 (4,379), full bf16 with checkpointing 3,656 (3,733).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llamaforge.spec.job import JobSpec

RUNTIME = 420_000_000
"""Bytes of a rank before its model: 363 MB after all imports (Linux x86-64, CPU build of torch),
the rest for tokenizer, allocator and threads."""

WAITING = 1 << 30
"""Bytes at most that the engine keeps of slices without a scale (`train.exact.fixed`)."""

_BYTES = {"bf16": 2, "fp32": 4}
_NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
}
"""What configurations of different model families call the same size."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder that decide about memory; all numbers per token or per model."""

    hidden: int
    layers: int
    query: int
    """Numbers in all query heads."""
    key: int
    """Numbers in all key heads; as many in the value heads."""
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the embedding is also the output layer."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """Reads a config.json; None when it doesn't say the sizes of a decoder."""
        config = {**config, **(config.get("text_config") or {})}
        found = {
            size: next((config[name] for name in names if config.get(name)), 0)
            for size, names in _NAMES.items()
        }
        if not all(isinstance(value, int) and value > 0 for value in found.values()):
            return None
        hidden, heads = found["hidden"], found["heads"]
        each = config.get("head_dim") or hidden // heads
        return cls(
            hidden=hidden,
            layers=found["layers"],
            query=heads * each,
            key=(config.get("num_key_value_heads") or heads) * each,
            intermediate=config.get("intermediate_size") or config.get("n_inner") or 4 * hidden,
            vocabulary=found["vocabulary"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's linear modules, by the names that Llama gives them."""
        h, q, k, f = self.hidden, self.query, self.key, self.intermediate
        return {
            "q_proj": (h, q),
            "k_proj": (h, k),
            "v_proj": (h, k),
            "o_proj": (q, h),
            "gate_proj": (h, f),
            "up_proj": (h, f),
            "down_proj": (f, h),
        }

    @property
    def parameters(self) -> int:
        """Numbers in a Llama of this shape."""
        layer = sum(i * o for i, o in self.linears.values()) + 2 * self.hidden
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return self.layers * layer + embeddings + self.hidden


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that one rank needs, by what for."""

    weights: int
    trained: int
    """The fp32 copy of what is trained."""
    optimizer: int
    gradients: int
    activations: int
    """At the peak of the largest slice."""
    runtime: int = RUNTIME
    whole: bool = True
    """False when config.json doesn't say the model's sizes: adapters and activations are not in."""

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights
            + self.trained
            + self.optimizer
            + self.gradients
            + self.activations
            + self.runtime
        )

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint: trained weights and moments in fp32, and a little text."""
        return self.trained + self.optimizer + 1_000_000


def estimate(config: Mapping[str, Any], *, spec: JobSpec, parameters: int | None = None) -> Memory:
    """Estimates a rank's memory; see the module's text for the formula.

    Args:
        config: what the model's config.json holds.
        spec: the job.
        parameters: numbers in the model's files where known; counted for a Llama otherwise.
    """
    shape, width = Shape.of(config), _BYTES[spec.precision]
    total = parameters if parameters is not None else (shape.parameters if shape else 0)
    adapters = _adapters(shape, spec) if shape and spec.method == "lora" else {}
    trained = total if spec.method == "full" else sum(adapters.values()) * (shape or _NONE).layers
    return Memory(
        weights=width * (total + (trained if adapters else 0)),
        trained=4 * trained,
        optimizer=8 * trained,
        gradients=(width + 8) * trained + min(WAITING, width * trained * spec.batch_size),
        activations=_activations(shape, spec, len(adapters)) if shape else 0,
        whole=shape is not None,
    )


_NONE = Shape(hidden=0, layers=0, query=0, key=0, intermediate=0, vocabulary=0, tied=True)


def _adapters(shape: Shape, spec: JobSpec) -> dict[str, int]:
    """Trained numbers of each adapted module of one layer."""
    every = spec.lora_targets == ("all-linear",)
    return {
        name: spec.lora_r * (inputs + outputs)
        for name, (inputs, outputs) in shape.linears.items()
        if every or name in spec.lora_targets
    }


def _activations(shape: Shape, spec: JobSpec, adapters: int) -> int:
    width = _BYTES[spec.precision]
    layer = (
        (8 + 2 * width) * shape.hidden
        + 2 * width * (shape.query + shape.key)
        + 4 * width * shape.intermediate
        + (2 * width * shape.hidden if spec.method == "full" else 0)
        + width * adapters * spec.lora_r
    )
    if spec.gradient_checkpointing:
        alive = layer + width * shape.layers * shape.hidden
    else:
        alive = layer * shape.layers
    logits = shape.vocabulary * (width + 12)
    return max(spec.slice_tokens, spec.max_length) * (alive + logits)
