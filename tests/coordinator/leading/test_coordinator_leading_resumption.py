"""Where the next generation goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from jobs import make_job
from llamaforge.bundle import checkpoints
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.leading import resumption
from llamaforge.errors import IntegrityError
from llamaforge.wire.api import Submission

ROWS = Entry(path="data/train.jsonl", sha256="a" * 64, size=1)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return Submission(
        job=make_job(),
        manifest=Manifest(entries=(ROWS,)),
        output_dir=str(tmp_path / "job"),
        checkpoint_dir=str(tmp_path / "job" / "checkpoints"),
    )


def save(submission: Submission, step: int, **state: object) -> Path:
    with checkpoints.begin(Path(submission.checkpoint_dir), step) as partial:
        (partial.path / "trained.safetensors").write_bytes(f"weights of {step}".encode())
        job = msgspec.to_builtins(submission.job)
        return partial.commit({"job": job, **state}, keep=2)


def resumed_files(manifest: Manifest) -> list[str]:
    return [entry.path for entry in manifest.entries if entry.path.startswith("resume/")]


def test_without_a_checkpoint_it_starts_at_the_first_step(
    submission: Submission, store: BlobStore
) -> None:
    start = resumption.newest(submission, Path(submission.checkpoint_dir), store)
    assert (start.manifest, start.step, start.resumed) == (submission.manifest, 0, False)


def test_the_newest_checkpoint_that_verifies_joins_the_bundle(
    submission: Submission, store: BlobStore
) -> None:
    save(submission, 5)
    (save(submission, 9) / "trained.safetensors").write_bytes(b"torn")
    start = resumption.newest(submission, Path(submission.checkpoint_dir), store)
    assert (start.step, start.resumed) == (5, True)
    assert "step-00000009" in start.notes[0]
    assert resumed_files(start.manifest) == [
        "resume/manifest.json",
        "resume/state.json",
        "resume/trained.safetensors",
    ]
    assert ROWS in start.manifest.entries
    weights = next(e for e in start.manifest.entries if e.path == "resume/trained.safetensors")
    assert store.path(weights.sha256).read_bytes() == b"weights of 5"


def test_it_takes_the_place_of_the_one_that_the_job_was_submitted_with(
    submission: Submission, store: BlobStore
) -> None:
    save(submission, 5)
    first = resumption.newest(submission, Path(submission.checkpoint_dir), store)
    again = msgspec.structs.replace(submission, manifest=first.manifest, resume_step=5)
    assert resumption.as_submitted(again) == first
    save(submission, 9)
    start = resumption.newest(again, Path(again.checkpoint_dir), store)
    assert start.step == 9
    assert len(resumed_files(start.manifest)) == 3


def test_a_checkpoint_that_was_submitted_is_good_enough(
    submission: Submission, store: BlobStore
) -> None:
    """The folder is gone, but its files are in the store."""
    save(submission, 5)
    first = resumption.newest(submission, Path(submission.checkpoint_dir), store)
    elsewhere = msgspec.structs.replace(
        submission, manifest=first.manifest, resume_step=5, checkpoint_dir="/nowhere"
    )
    start = resumption.newest(elsewhere, Path(elsewhere.checkpoint_dir), store)
    assert (start.step, start.resumed, start.manifest) == (5, True, first.manifest)


def test_another_jobs_checkpoint_is_refused(submission: Submission, store: BlobStore) -> None:
    other = msgspec.structs.replace(submission.job, id="other")
    save(msgspec.structs.replace(submission, job=other), 5)
    with pytest.raises(IntegrityError, match="is of the job other"):
        resumption.newest(submission, Path(submission.checkpoint_dir), store)


def test_generations_are_counted_on(submission: Submission, store: BlobStore) -> None:
    assert (
        resumption.last_generation(
            resumption.newest(submission, Path(submission.checkpoint_dir), store), store
        )
        == 0
    )
    save(submission, 5, cursor={"generations": [{"generation": 1}, {"generation": 4}]})
    assert (
        resumption.last_generation(
            resumption.newest(submission, Path(submission.checkpoint_dir), store), store
        )
        == 4
    )
