from __future__ import annotations

import errno
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import msgspec
import pytest
from powercut import Recorder, power_cuts

from llamaforge.bundle import checkpoints
from llamaforge.bundle.disk import Disk, check_disk
from llamaforge.errors import IntegrityError, LlamaForgeError, UserError


def save(root: Path, step: int, *, keep: int = 2, disk: Disk | None = None, content="") -> Path:
    disk = disk or Disk()
    with checkpoints.begin(root, step, disk=disk) as partial:
        text = content or f"tensors of step {step}"
        disk.write(partial.path / "trained.safetensors", text.encode() * 9)
        disk.make_folder(partial.path / "tokenizer")
        disk.write(partial.path / "tokenizer" / "vocabulary.json", b'{"a": 0}' * 9)
        return partial.commit({"job": {"id": "j"}, "content": text}, keep)


CHECKPOINTS = {"what": "checkpoints", "option": "--checkpoint-dir"}


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_committed_checkpoint_verifies_and_tells_its_state(tmp_path):
    path = save(tmp_path, 120)
    assert path == tmp_path / "step-00000120"
    found = checkpoints.verify(path)
    assert found.step == 120
    assert found.state == {"job": {"id": "j"}, "content": "tensors of step 120", "step": 120}
    assert [entry.path for entry in found.manifest.entries] == [
        "state.json",
        "tokenizer/vocabulary.json",
        "trained.safetensors",
    ]


def test_only_the_wanted_number_of_verified_checkpoints_stays(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_damaged_checkpoints_do_not_count_as_kept(tmp_path, caplog):
    save(tmp_path, 1)
    damaged = save(tmp_path, 2)
    (damaged / "trained.safetensors").write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "llamaforge"):
        save(tmp_path, 3, keep=2)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
    assert "step-00000002/trained.safetensors: has 1 bytes" in caplog.text
    save(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_newest_looks_at_steps_not_at_text_order_or_time(tmp_path):
    for step in (100, 99_999_999, 101):
        save(tmp_path, step, keep=9)
    found = checkpoints.newest(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.step == 99_999_999


def test_newest_of_nothing_is_none(tmp_path):
    assert checkpoints.newest(tmp_path / "absent") == checkpoints.Found(checkpoint=None)
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-00000007.partial").mkdir()
    (tmp_path / "step-00000008").write_text("a file")
    assert checkpoints.newest(tmp_path) == checkpoints.Found(checkpoint=None)


def truncate(path: Path) -> None:
    (path / "trained.safetensors").write_bytes(b"short")


def flip(path: Path) -> None:
    data = bytearray((path / "trained.safetensors").read_bytes())
    data[5] ^= 1
    (path / "trained.safetensors").write_bytes(data)


def rename_folder_to_a_later_step(path: Path) -> None:
    manifest = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(manifest.replace('"step": 2', '"step": 1'))


def climb(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace("tokenizer/vocab", "../vocab"))


DAMAGE = {
    "trained.safetensors: has 5 bytes, not 153": truncate,
    "trained.safetensors: its SHA-256 differs": flip,
    "trained.safetensors: is missing": lambda path: (path / "trained.safetensors").unlink(),
    "state.json: is missing": lambda path: (path / "state.json").unlink(),
    "never completed": lambda path: (path / "manifest.json").unlink(),
    "manifest.json: not the JSON": lambda path: (path / "manifest.json").write_bytes(bytes(50)),
    "extra.bin: is not in manifest.json": lambda path: (path / "extra.bin").write_bytes(b"?"),
    "is of step 1, not of the folder's": rename_folder_to_a_later_step,
    "bundle path '../vocabulary.json' is not usable": climb,
}


@pytest.mark.parametrize("why", DAMAGE)
def test_every_damage_is_named_and_the_previous_checkpoint_is_found(tmp_path, why):
    save(tmp_path, 1)
    broken = save(tmp_path, 2)
    DAMAGE[why](broken)
    with pytest.raises(IntegrityError) as caught:
        checkpoints.verify(broken)
    assert why in caught.value.message
    found = checkpoints.newest(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.step == 1
    assert found.damaged == [(broken, caught.value.message)]


def test_a_file_that_cannot_be_read_is_damage_too(tmp_path):
    path = save(tmp_path, 1)
    (path / "trained.safetensors").unlink()
    (path / "trained.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(IntegrityError, match="can't be read"):
        checkpoints.verify(path)


def test_leaving_without_a_commit_leaves_nothing(tmp_path):
    def interrupted():
        with checkpoints.begin(tmp_path, 5) as partial:
            (partial.path / "half").write_bytes(b"h")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_begin_clears_what_crashes_left_but_not_what_is_arriving(tmp_path):
    for leftover in ("step-00000003.partial", "step-00000001.deleting", "step-00000009.incoming"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "file").write_bytes(b"f")
    (tmp_path / "mine.partial").mkdir()
    with checkpoints.begin(tmp_path, 4):
        assert names(tmp_path) == [
            "mine.partial",
            "step-00000004.partial",
            "step-00000009.incoming",
        ]


def test_a_step_committed_again_replaces_its_checkpoint(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2, content="first")
    save(tmp_path, 2, content="second")
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert checkpoints.verify(tmp_path / "step-00000002").state["content"] == "second"


# ── from another machine ──────────────────────────────────────────────────────────────────────


def arrive(source: Path, root: Path) -> str:
    shutil.copytree(source, checkpoints.receive(root, source.name), dirs_exist_ok=True)
    return source.name


def test_an_arrived_checkpoint_is_verified_and_kept_like_a_written_one(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for step in (1, 2, 3):
        path = checkpoints.accept(here, arrive(save(there, step), here), 2)
        assert path == here / f"step-0000000{step}"
        assert checkpoints.verify(path).step == step
    assert names(here) == ["step-00000002", "step-00000003"]


def test_a_checkpoint_that_changed_on_the_way_is_refused_and_removed(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    checkpoints.accept(here, arrive(save(there, 1), here), 2)
    name = arrive(save(there, 2), here)
    flip(here / f"{name}.incoming")
    with pytest.raises(IntegrityError, match="SHA-256"):
        checkpoints.accept(here, name, 2)
    assert names(here) == ["step-00000001"]


def test_a_checkpoint_of_another_step_is_refused(tmp_path):
    folder = checkpoints.receive(tmp_path / "here", "step-00000005")
    shutil.copytree(save(tmp_path / "there", 4), folder, dirs_exist_ok=True)
    with pytest.raises(IntegrityError, match="is of step 4"):
        checkpoints.accept(tmp_path / "here", "step-00000005", 2)


@pytest.mark.parametrize("name", ["", "..", "step-1", "step-00000001/../x", "step-00000001.old"])
def test_a_peer_cannot_choose_another_folder(tmp_path, name):
    with pytest.raises(IntegrityError, match="not the name of a checkpoint"):
        checkpoints.receive(tmp_path, name)
    with pytest.raises(IntegrityError, match="not the name of a checkpoint"):
        checkpoints.accept(tmp_path, name, 2)
    assert names(tmp_path) == []


# ── disks that refuse ─────────────────────────────────────────────────────────────────────────


class Refusing(Disk):
    """Fails at the n-th operation with an error of the operating system."""

    def __init__(self, at: int, number: int) -> None:
        self.left = at
        self.number = number

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.number, os.strerror(self.number))

    def write(self, path: Path, data: bytes) -> None:
        self._count()
        super().write(path, data)

    def sync_file(self, path: Path) -> None:
        self._count()
        super().sync_file(path)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_whenever_the_disk_refuses_the_previous_checkpoint_stays(tmp_path, number):
    save(tmp_path, 1)
    cause = "the disk is full" if number == errno.ENOSPC else "Permission denied"
    for at in range(1, 11):
        with pytest.raises(LlamaForgeError, match=cause) as caught:
            save(tmp_path, 2, disk=Refusing(at, number))
        assert f"step 2 can't be saved in {tmp_path}" in caught.value.message
        assert "--checkpoint-dir" in caught.value.hint
        assert names(tmp_path) == ["step-00000001"]
    save(tmp_path, 2, disk=Refusing(99, number))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_full_disk_while_tensors_are_written_is_said_the_same_way(tmp_path):
    from safetensors import SafetensorError

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with (
        pytest.raises(LlamaForgeError, match="the disk is full"),
        checkpoints.begin(tmp_path, 1),
    ):
        raise SafetensorError(text)
    assert names(tmp_path) == []


def test_an_old_checkpoint_that_cannot_be_deleted_does_not_fail_the_new_one(tmp_path, caplog):
    class Undeletable(Disk):
        def remove(self, path: Path) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

    for step in (1, 2):
        save(tmp_path, step)
    with caplog.at_level(logging.WARNING, "llamaforge"):
        assert save(tmp_path, 3, disk=Undeletable()).name == "step-00000003"
    assert "can't be deleted" in caplog.text


def test_room_on_the_disk_is_checked_before_the_start(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 50_000_000))
    check_disk(tmp_path / "new" / "folder", 40_000_000, **CHECKPOINTS)
    with pytest.raises(UserError, match="need 60 MB, 50 MB are free"):
        check_disk(tmp_path / "new" / "folder", 60_000_000, **CHECKPOINTS)


def test_a_file_in_the_place_of_a_folder_is_refused_before_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder you may write to"):
        check_disk(tmp_path / "file" / "below", 1, **CHECKPOINTS)


def test_standing_checkpoints_count_for_the_room_that_is_needed(tmp_path):
    assert checkpoints.free_bytes_needed(tmp_path, 10, keep=2) == 30
    save(tmp_path, 1)
    assert checkpoints.free_bytes_needed(tmp_path, 10, keep=2) == 20
    for step in (2, 3, 4):
        save(tmp_path, step, keep=9)
    assert checkpoints.free_bytes_needed(tmp_path, 10, keep=2) == 10


# ── power cuts ────────────────────────────────────────────────────────────────────────────────


class Hasty(Disk):
    """Syncs nothing: for what no power cut will follow."""

    def sync_file(self, path: Path) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def history(base: Path, forget: str = "") -> Recorder:
    """Three saves, one of them twice, one arrival, old ones deleted on the way."""
    base.mkdir()
    disk = Recorder(base, forget=forget)
    root = base / "runs" / "checkpoints"
    for step, content in ((1, "first"), (2, "first"), (2, "second"), (3, "first")):
        save(root, step, disk=disk, content=content)
        disk.returned(step)
    source = save(base / "elsewhere", 4)
    folder = checkpoints.receive(root, source.name, disk=disk)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        disk.make_folder((folder / file.relative_to(source)).parent)
        disk.write(folder / file.relative_to(source), file.read_bytes())
    checkpoints.accept(root, source.name, 2, disk=disk)
    disk.returned(4)
    return disk


def lost(disk: Recorder, scratch: Path, mixes: int) -> list[str]:
    """Replays every power cut; says where a promised checkpoint was not found, or worse."""
    problems = []
    for done, base in power_cuts(disk.record, scratch, mixes):
        root = base / "runs" / "checkpoints"
        promised = max((step for length, step in disk.marks if length <= done), default=0)
        found = checkpoints.newest(root).checkpoint
        if (found.step if found else 0) < promised:
            problems.append(f"after {done} operations step {promised} is gone")
        elif found and found.step < 4 and found.state["content"] not in ("first", "second"):
            problems.append(f"after {done} operations step {found.step} holds {found.state}")
        else:
            save(root, 7, disk=Hasty())
            after = checkpoints.newest(root)
            if not after.checkpoint or after.checkpoint.step != 7:
                problems.append(f"after {done} operations nothing can be saved any more")
        shutil.rmtree(base)
    return problems


def test_a_power_cut_at_any_operation_loses_no_promised_checkpoint(tmp_path):
    disk = history(tmp_path / "disk")
    assert len(disk.record) > 80
    assert lost(disk, tmp_path / "cuts", mixes=6) == []


@pytest.mark.parametrize("forgotten", ["sync_file", "sync_folder"])
def test_the_replay_notices_a_protocol_that_does_not_sync(tmp_path, forgotten):
    disk = history(tmp_path / "disk", forget=forgotten)
    assert lost(disk, tmp_path / "cuts", mixes=1) != []


def test_the_manifest_is_json_that_a_person_can_read(tmp_path):
    text = (save(tmp_path, 1) / "manifest.json").read_bytes()
    assert text.count(b"\n") > 10
    assert msgspec.json.decode(text)["format"] == 1
