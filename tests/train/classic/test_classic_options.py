"""Torchrun's parser sees a job's options before we do: none may look like one of its own."""

from __future__ import annotations

import pytest
from torch.distributed.run import get_args_parser

from llamaforge.spec.options import options


@pytest.mark.parametrize("name", options())
def test_torchrun_hands_every_option_of_a_job_on(name: str) -> None:
    flag = options()[name].flag
    given = ["--nnodes=2", "--node_rank=0", "distributed_train.py", flag, "value"]
    assert get_args_parser().parse_args(given).training_script_args == [flag, "value"]
