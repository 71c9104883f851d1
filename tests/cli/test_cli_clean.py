"""`clean`: says what is there and what goes, and takes nothing that is in use."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import pytest

from llamaforge.bundle.lease import Lease
from llamaforge.bundle.store import BlobStore
from llamaforge.cli import clean
from llamaforge.cli.main import run

Output = pytest.CaptureFixture[str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(clean, "SERVICES", {})
    return tmp_path / "llamaforge"


def blob(cache: Path, fill: bytes, *, age: float = 86400.0, size: int = 40 << 10) -> str:
    store = BlobStore(cache / "blobs")
    sha256, _ = store.add_bytes(fill * size)
    path = store.blob(sha256)
    os.utime(path, ns=(time.time_ns() - int(age * 1e9), path.stat().st_mtime_ns))
    return sha256


def stands(cache: Path, *digests: str) -> list[bool]:
    return [(cache / "blobs" / "blobs" / one[:2] / one).exists() for one in digests]


def test_without_a_cache_there_is_nothing_to_say_but_that(cache: Path, capsys: Output) -> None:
    assert run(["clean"]) == 0
    assert "there is no cache here" in capsys.readouterr().out


def test_what_is_within_the_limit_stays(cache: Path, capsys: Output) -> None:
    one = blob(cache, b"a")
    assert run(["clean"]) == 0
    assert stands(cache, one) == [True]
    assert "blobs" in capsys.readouterr().out


def test_a_dry_run_says_what_would_go(cache: Path, capsys: Output) -> None:
    old, new = blob(cache, b"a", age=9e5), blob(cache, b"b")
    assert run(["clean", "--keep", "60K", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "would go" in said
    assert stands(cache, old, new) == [True, True]
    assert run(["clean", "--keep", "60K"]) == 0
    assert stands(cache, old, new) == [False, True]


def test_all_goes_but_what_is_in_use(cache: Path, capsys: Output) -> None:
    held, fresh, old = blob(cache, b"a"), blob(cache, b"b", age=1), blob(cache, b"c")
    lease = Lease(cache, [held])  # keeps what is used from now on; the fresh one was used before
    assert run(["clean", "--keep", "1K"]) == 0
    assert stands(cache, held, fresh, old) == [True, True, False]
    assert run(["clean", "--all", "--json"]) == 0
    lease.free()
    assert stands(cache, held, fresh, old) == [True, False, False]
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["limit"] == 0
    assert said["in_use"] == said["bytes"] > 0
    assert [part["gone"] for part in said["parts"] if part["kind"] == "blobs"] == [1]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--keep", "some"], "--keep is 'some'"),
        (["--keep", "1G", "--all"], "contradict"),
        (["--cache-dir", "/nowhere/at/all"], "no such folder"),
    ],
)
def test_slips_are_refused(cache: Path, capsys: Output, args: list[str], said: str) -> None:
    one = blob(cache, b"a")
    assert run(["clean", *args]) == 2
    assert said in capsys.readouterr().err
    assert stands(cache, one) == [True]


def test_the_limit_of_a_service_is_read_from_its_settings(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    conf = tmp_path / "worker.conf"
    conf.write_text("MASTER_ADDR=box1\nLLAMAFORGE_CACHE_LIMIT=50G\n")
    monkeypatch.setattr(clean, "SERVICES", {cache: (str(conf), clean.WorkerSettings)})
    assert clean.limit_of(cache, {"LLAMAFORGE_CACHE_LIMIT": "1G"}) == 50 << 30
    conf.unlink()
    assert clean.limit_of(cache, {}) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
def test_root_leaves_no_file_of_its_own_in_another_ones_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as base:  # pytest's own folders are closed to others
        Path(base).chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        monkeypatch.setattr(clean, "SERVICES", {})
        cache = Path(base) / "llamaforge"
        old = blob(cache, b"a")
        for path in (cache, *cache.rglob("*")):
            os.chown(path, 65534, 65534)
        assert run(["clean", "--all"]) == 0
        assert stands(cache, old) == [False]
        assert os.geteuid() == 0
        assert {path.stat().st_uid for path in cache.rglob("*")} == {65534}
