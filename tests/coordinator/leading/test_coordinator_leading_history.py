"""What a proof tells of a job's generations."""

from __future__ import annotations

from llamaforge.coordinator.leading.history import History
from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import NodeRanks


def members(*names: str) -> tuple[NodeRanks, ...]:
    return tuple(NodeRanks(node=n, first_rank=i, count=1, cores=1) for i, n in enumerate(names))


def test_the_proof_tells_all_generations_and_which_ones_count() -> None:
    history = History()
    assert (history.number, history.nodes, history.members) == (0, frozenset(), 0)
    history.began(1, members("a", "b"), {}, 0)
    history.ended("b left (told to end)", step=5)
    history.began(2, members("a"), {}, 5)
    history.ended("node a is lost\n  its last lines: …", step=7)
    history.began(3, members("a", "b"), {}, 5)
    history.ended("finished", step=9)
    assert (history.number, history.nodes) == (3, {"a", "b"})
    ranks_told = [{"generation": n, "guarantee": "same numbers", "why": "alike"} for n in (1, 3)]
    done = Outcome(
        state=JobState.DONE, reason="finished", proof={"steps": 9, "generations": ranks_told}
    )
    first, lost, last = history.proven(done).proof["generations"]  # type: ignore[index]
    assert (first["ended"], first["last_step"]) == ("b left (told to end)", 5)
    assert first["guarantee"] == "same numbers"
    assert (lost["generation"], lost["kept"], lost["ended"]) == (2, False, "node a is lost")
    assert (last["first_step"], last["last_step"], last["ranks"]) == (6, 9, {"a": 1, "b": 1})
    assert "kept" not in first | last


def test_generations_of_an_earlier_coordinator_stay_in_the_proof() -> None:
    history = History()
    history.began(5, members("a"), {}, 40)
    past = [{"generation": n} for n in (1, 4, 5)]
    done = Outcome(state=JobState.DONE, reason="finished", proof={"generations": past})
    proof = history.proven(done).proof
    assert proof is not None
    assert [entry["generation"] for entry in proof["generations"]] == [1, 4, 5]


def test_no_proof_stays_none() -> None:
    failed = Outcome(state=JobState.FAILED, reason="x")
    assert History().proven(failed) == failed
