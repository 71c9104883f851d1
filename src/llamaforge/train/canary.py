"""One fixed slice of the shipped tiny model: the SHA-256 of its gradient, to compare machines by.

    python -m llamaforge.train.canary --precision bf16 --threads 1

prints `{"canary": "9f…"}`. It goes the very way that a job's slices go: the environment is cleaned,
threads are set and checked, rows are packed, and the gradient is that of `SlicePass`. Machines with
the same digest use the same kernels for these shapes. A job still measures its own model at the
start of each generation (`train.exact.guarantee`); this one is known before ranks are started.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from typing import Any

from llamaforge import paths
from llamaforge.bundle.models import SHIPPED
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import JobSpec, Precision
from llamaforge.train.exact import threads

ROWS = (40, 96, 17, 71)
"""Tokens of each row of the slice."""
SEED = 20_250_101


def main() -> int:
    """Prints the digest. Exit codes: 0 done, 1 or 2 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="llamaforge.train.canary")
    parser.add_argument("--precision", choices=("bf16", "fp32"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    threads.sanitise_environment()
    try:
        found = digest(options.precision, options.threads)
    except LlamaForgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"canary": found}), flush=True)
    return 0


def digest(precision: Precision, count: int) -> str:
    """The SHA-256 of the slice's gradients, of all weights and of LoRA's, as hexadecimal digits.

    Args:
        precision: of weights and kernels.
        count: compute threads.

    Raises:
        LlamaForgeError: the model isn't there, or threads can't be had.
    """
    import torch

    threads.use(count)
    torch.use_deterministic_algorithms(True)
    seen = hashlib.sha256()
    for method in ("full", "lora"):
        seen.update(
            _gradient(JobSpec(model="tiny", dataset="", method=method, precision=precision))
        )
    return seen.hexdigest()


def _gradient(spec: JobSpec) -> bytes:
    """The digest of one method's gradient."""
    from llamaforge.train import isolation, model
    from llamaforge.train.exact import digest
    from llamaforge.train.exact.layout import Layout
    from llamaforge.train.slice_pass import SlicePass

    folder = paths.shipped(SHIPPED["tiny"])
    if folder is None:
        raise LlamaForgeError(
            "this installation does not carry the tiny model that canary slices need",
            hint="install LlamaForge from its wheel or a whole clone",
        )
    network: Any = model.make_trainable(model.load(folder, spec.precision), spec)
    named = model.trained(network)
    passes = SlicePass(network, Layout(named), [parameter for _, parameter in named])
    vocabulary = network.config.vocab_size
    passes.packed = isolation.rows_stay_apart(passes, vocabulary)
    passes.train(_rows(vocabulary), seed=(0, -1, -1))
    return digest.of_vector(passes.gradient)


def _rows(vocabulary: int) -> list[Any]:
    """The slice: the same tokens everywhere, all of them trained."""
    import numpy as np

    from llamaforge.train.rows.tokens import Tokens

    random = np.random.Generator(np.random.PCG64(SEED))
    return [
        Tokens(
            ids=random.integers(0, vocabulary, length).astype(np.int32),
            trained=np.ones(length, dtype=bool),
            truncated=False,
        )
        for length in ROWS
    ]


if __name__ == "__main__":
    sys.exit(main())
