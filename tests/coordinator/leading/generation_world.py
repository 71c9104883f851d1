"""A generation of two nodes that nobody but the test talks to."""

from __future__ import annotations

from jobs import make_job
from llamaforge.bundle.manifest import Manifest
from llamaforge.coordinator.leading.generation import (
    Generation,
)
from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.spec.job import Job
from llamaforge.spec.ranks import Finished, Metric, StoreReady
from llamaforge.spec.script import ScriptJob
from llamaforge.wire.messages import (
    FromCoordinator,
    RankExited,
    StopRanks,
    Uploaded,
)
from llamaforge.wire.updates import NodeRanks

STOP_SECONDS = 60.0


class World:
    """Two nodes with two ranks each: 0 and 1 on a, 2 and 3 on b."""

    def __init__(self, work: Job | ScriptJob | None = None) -> None:
        self.now = 0.0
        self.sent: list[tuple[str, FromCoordinator]] = []
        self.generation = Generation(
            work or make_job(),
            1,
            Manifest(),
            (
                NodeRanks(node="a", first_rank=0, count=2, cores=2),
                NodeRanks(node="b", first_rank=2, count=2, cores=2),
            ),
            send=lambda node, message: self.sent.append((node, message)),
            clock=lambda: self.now,
            stop_seconds=STOP_SECONDS,
        )
        self.generation.start()

    def run(self) -> None:
        self.generation.said(0, StoreReady(host="10.0.0.1", port=5))
        self.generation.said(0, Metric(line={"step": 1}))

    def exit(self, *ranks: int, code: int | None = 0, **fields: object) -> None:
        for rank in ranks:
            self.generation.exited(
                RankExited(job_id="j", generation=1, rank=rank, code=code, **fields)  # type: ignore[arg-type]
            )

    def finish(self, *, stopped: bool = False) -> None:
        finished = Finished(artifacts="/x", proof={"steps": 3}, stopped=stopped)
        self.generation.said(0, finished)

    def upload(self, error: str = "") -> None:
        self.generation.uploaded("a", Uploaded(job_id="j", what="artifacts", error=error))

    def stops(self) -> list[tuple[str, str]]:
        return [(node, m.how) for node, m in self.sent if isinstance(m, StopRanks)]

    def outcome(self) -> Outcome:
        assert self.generation.over
        return self.generation.outcome()
