#!/usr/bin/env python3
"""Fine-tunes a model under plain torchrun; machines with a waiting worker join by themselves.

    python3 -m torch.distributed.run --nproc_per_node=1 --nnodes=2 --node_rank=0 \
        --master_addr=ADDRESS --master_port=29500 distributed_train.py \
        --model tiny --dataset examples/datasets/alpaca_1k.jsonl --epochs 1 --batch-size 2

Without torchrun it trains on this machine alone. The options are those of `llamaforge train`;
`--batch-size` counts rows per process here. See docs/CLASSIC.md.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("llamaforge") is None:  # run from a checkout, perhaps through a symbolic link
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from llamaforge.cli.options import parse
from llamaforge.spec.job import JobSpec
from llamaforge.train.classic import entry


def read_spec() -> JobSpec:
    """What was asked for on the command line, with whole paths."""
    spec = parse(sys.argv[1:], prog="distributed_train.py")
    from llamaforge.cli.launch import with_whole_paths  # slow to import; mistakes come first

    return with_whole_paths(spec)


if __name__ == "__main__":
    sys.exit(entry.main(read_spec))
