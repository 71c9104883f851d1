"""A job's folder: nothing is written outside of it, nothing stands half-written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs import make_job
from llamaforge.bundle import checkpoints
from llamaforge.coordinator.folder import JobFolder, inside, receive_file
from llamaforge.errors import IntegrityError, UserError


def job_folder(root: Path, resumed: int | None = None) -> JobFolder:
    return JobFolder(make_job(), root / "run", root / "run" / "checkpoints", resumed=resumed)


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@given(st.text(alphabet="./ab\0", max_size=12))
def test_no_path_leaves_the_folder(relative: str) -> None:
    root = Path("/jobs/one")
    try:
        target = inside(root, relative)
    except IntegrityError:
        return
    assert target != root
    assert target.is_relative_to(root)
    assert ".." not in target.parts


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="leaves the folder"):
        inside(tmp_path / "run", "link/evil")


async def test_a_file_arrives_whole(tmp_path: Path) -> None:
    await receive_file(tmp_path, "sub/file", 6, stream(b"abc", b"def"))
    assert (tmp_path / "sub/file").read_bytes() == b"abcdef"


@pytest.mark.parametrize("parts", [(b"abc",), (b"abc", b"defg"), ()])
async def test_a_wrong_length_leaves_the_old_file(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(IntegrityError, match="in place of 6"):
        await receive_file(tmp_path, "file", 6, stream(*parts))
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_a_broken_transfer_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await receive_file(tmp_path, "file", 6, broken())
    assert list(tmp_path.iterdir()) == []


async def test_a_checkpoint_is_verified_before_it_counts(tmp_path: Path) -> None:
    with checkpoints.begin(tmp_path / "node", 12) as partial:
        (partial.path / "trained.safetensors").write_bytes(b"weights")
        sent = partial.commit({"job": "x"}, keep=2)
    folder = job_folder(tmp_path)
    folder.begin_checkpoint(sent.name)
    for path in sent.iterdir():
        data = path.read_bytes()
        await folder.checkpoint_file(sent.name, path.name, len(data), stream(data))
    kept = await folder.accept_checkpoint(sent.name)
    assert kept == tmp_path / "run/checkpoints/step-00000012"
    assert checkpoints.newest(folder.checkpoints).checkpoint is not None

    folder.begin_checkpoint("step-00000013")
    await folder.checkpoint_file("step-00000013", "manifest.json", 2, stream(b"{}"))
    with pytest.raises(IntegrityError):
        await folder.accept_checkpoint("step-00000013")
    with pytest.raises(IntegrityError, match="was not announced"):
        await folder.checkpoint_file("step-00000014", "x", 1, stream(b"x"))
    with pytest.raises(IntegrityError):
        folder.begin_checkpoint("../step-00000001")


def test_the_job_file_holds_the_resolved_job(tmp_path: Path) -> None:
    job_folder(tmp_path)
    written = yaml.safe_load((tmp_path / "run/job.yaml").read_text())
    assert written["id"] == "test-job"
    assert written["spec"]["model"] == "model"


def test_a_resume_drops_the_metrics_that_are_computed_again(tmp_path: Path) -> None:
    first = job_folder(tmp_path)
    for step in (1, 2, 3):
        first.metric({"step": step, "loss": 1.0})
    first.close()
    job_folder(tmp_path, resumed=2).close()
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2


def test_a_folder_that_can_not_be_made_is_the_users_business(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="can't be written") as error:
        job_folder(tmp_path)
    assert "--output-dir" in error.value.hint


async def test_the_picture_is_drawn_by_another_process(tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    folder.metric({"step": 1, "loss": 2.0, "lr": 1e-3})
    folder.close()
    assert await folder.draw_aside() == ""
    assert "<svg" in (folder.path / "loss.svg").read_text()
    (folder.path / "metrics.jsonl").write_text("broken\n\n")
    assert "not a JSON object" in await folder.draw_aside()
