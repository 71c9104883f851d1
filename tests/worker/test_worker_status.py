"""The line that `systemctl status` shows."""

from __future__ import annotations

import pytest

from llamaforge.spec.ranks import Progress
from llamaforge.worker.status import Situation, line

PROGRESS = Progress(
    job="alpaca-3f2a",
    generation=1,
    rank=1,
    world_size=2,
    nodes=2,
    step=120,
    total_steps=960,
    tokens_per_second=412.4,
)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Situation(classic="10.9.66.154:29500"), "waiting for 10.9.66.154:29500"),
        (
            Situation(connected=True, coordinator="connected to 10.0.0.1:29400"),
            "waiting for a job; connected to 10.0.0.1:29400",
        ),
        (
            Situation(
                classic="a:29500", known=True, coordinator="waiting: nothing answers at c:29400"
            ),
            "waiting: nothing answers at c:29400; also waiting for torchrun at a:29500",
        ),
        (Situation(), "waiting for its coordinator"),
        (Situation(busy="job x", classic="a:1"), "job x: preparing"),
        (
            Situation(busy="job x", progress=PROGRESS),
            "job alpaca-3f2a step 120/960, 412 tok/s, 2 nodes",
        ),
        (
            Situation(trouble="HF_HOME=/mnt/models is not there", busy="", classic="a:1"),
            "not ready: HF_HOME=/mnt/models is not there",
        ),
        (
            Situation(leaving="told to by SIGTERM", progress=PROGRESS),
            "leaving: told to by SIGTERM",
        ),
    ],
)
def test_the_most_important_thing_is_said(now: Situation, said: str) -> None:
    assert line(now) == said


def test_a_job_that_has_not_begun_says_no_speed() -> None:
    first = Progress(job="j", generation=1, rank=0, world_size=1, nodes=1, step=0, total_steps=9)
    assert line(Situation(progress=first)) == "job j step 0/9, 1 node"


def test_a_worker_that_can_not_confine_ranks_says_so_while_it_waits() -> None:
    now = Situation(connected=True, coordinator="connected to x", unconfined=True)
    assert line(now).endswith("; ranks run unconfined")
    assert "unconfined" not in line(Situation(trouble="no disk", unconfined=True))
