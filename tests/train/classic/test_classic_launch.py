"""Torchrun's variables."""

from __future__ import annotations

import pytest

from llamaforge.errors import UserError
from llamaforge.train.classic.launch import Launch

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "RANK": "2",
    "WORLD_SIZE": "3",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}


def test_without_torchrun_a_process_is_alone() -> None:
    launch = Launch.from_environment({"WORLD_SIZE": "2", "RANK": "1"})
    assert (launch.rank, launch.world_size, launch.leads_node) == (0, 1, True)


def test_torchruns_place_is_taken() -> None:
    launch = Launch.from_environment(TORCHRUN)
    assert (launch.rank, launch.world_size, launch.node, launch.nodes) == (2, 3, 1, 2)
    assert (launch.store_host, launch.store_port) == ("10.0.0.1", 29500)
    assert launch.leads_node


def test_a_torchrun_that_keeps_its_store_to_itself_is_refused() -> None:
    with pytest.raises(UserError, match="does not share its own store"):
        Launch.from_environment({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"})


@pytest.mark.parametrize("value", ["", "x", "-1"])
def test_a_broken_variable_is_named(value: str) -> None:
    with pytest.raises(UserError, match="LOCAL_WORLD_SIZE"):
        Launch.from_environment({**TORCHRUN, "LOCAL_WORLD_SIZE": value})
