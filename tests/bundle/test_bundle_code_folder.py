"""What of a script's folder travels, and how it stands on a node."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.bundle import code_folder, code_layout
from llamaforge.bundle.code_folder import IGNORE_FILE, CodeFolder, add, look
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError, UserError


def make(root: Path, **files: str) -> Path:
    for name, text in files.items():
        write(root, name.replace("__", "/"), text)
    return root


def write(root: Path, name: str, text: str = "x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def paths(found: CodeFolder) -> list[str]:
    return [file.path for file in found.files]


def test_git_and_this_agree_on_what_is_ignored(tmp_path: Path) -> None:
    """Nested files, negation, folders, anchors: held against git itself."""
    for name in (
        *("train.py", "data/big.bin", "data/small.txt", "keep/data/x", "log.txt", "a/log.txt"),
        *("build/x.o", "a/build/y.o", "a/keep.o", "z/skip.me", "z/not.me", "dir/only"),
    ):
        write(tmp_path, name)
    write(tmp_path, ".gitignore", "/data/*\n!/data/small.txt\n*.o\nlog.txt\n/dir/\n")
    write(tmp_path, "a/.gitignore", "!keep.o\n")
    write(tmp_path, "z/.gitignore", "*.me\n!not.me\n")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = [*git, "ls-files", "--others", "--exclude-standard"]
    done = subprocess.run(listed, check=True, capture_output=True, text=True)
    assert paths(look(tmp_path)) == sorted(done.stdout.split())


def test_the_repository_above_counts(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, ".gitignore", "*.bin\n/sub/secret\n")
    make(tmp_path, sub__train="", sub__secret="")
    write(tmp_path, "sub/x.bin")
    assert paths(look(tmp_path / "sub")) == ["train"]


def test_our_own_file_replaces_gits(tmp_path: Path) -> None:
    write(tmp_path, ".gitignore", "weights\n")
    write(tmp_path, IGNORE_FILE, "*.log\n!.env\n")
    for name in ("weights", "a.log", ".env", "runs/old/model", ".git/config", "sub/x.pyc"):
        write(tmp_path, name)
    assert paths(look(tmp_path)) == sorted([".env", ".gitignore", IGNORE_FILE, "weights"])


def test_what_is_never_wanted_stays_without_any_file(tmp_path: Path) -> None:
    for name in (".env", ".netrc", ".venv/bin/python", "__pycache__/a.pyc", "runs/x", "a/runs/y"):
        write(tmp_path, name)
    found = look(tmp_path)
    assert paths(found) == ["a/runs/y"]
    assert found.left_out == 5


def test_links_inside_travel_and_links_out_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "root", train="", sub__data="")
    (root / "sub" / "near").symlink_to("../train")
    (root / "whole").symlink_to(root / "sub")  # absolute, but inside
    assert look(root).links == {"sub/near": "../train", "whole": "sub"}
    for number, target in enumerate(("../outside", "/etc/passwd", "sub/../../outside")):
        link = root / f"bad{number}"
        link.symlink_to(target)
        with pytest.raises(UserError, match=link.name) as refused:
            look(root)
        assert IGNORE_FILE in refused.value.hint
        link.unlink()


def test_a_chain_of_links_that_leads_out_is_refused(tmp_path: Path) -> None:
    """Each one stays inside as it is written; together they don't."""
    root = make(tmp_path / "root", a__b__c="")
    (root / "here").symlink_to(".")
    (root / "a" / "b" / "up").symlink_to("../../here/../x")
    with pytest.raises(UserError, match="a/b/up"):
        look(root)


def test_a_folder_that_is_too_big_names_the_biggest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write(tmp_path, f"f{number}", "x" * (1000 * number))
    with pytest.raises(UserError, match="f7") as refused:
        look(tmp_path, size_limit=10_000)
    assert "f2" not in str(refused.value)
    assert "--max-size" in refused.value.hint
    assert look(tmp_path, size_limit=28_000).size == 28_000
    monkeypatch.setattr(code_folder, "FILES_LIMIT", 7)
    with pytest.raises(UserError, match="8 files"):
        look(tmp_path)


def test_pipes_and_sockets_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert look(tmp_path).left_out == 2


def test_no_folder_and_a_file_that_goes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        look(tmp_path / "none")
    found = look(make(tmp_path, train=""))
    (tmp_path / "train").unlink()
    with pytest.raises(UserError, match="train can't be read"):
        add(found, BlobStore(tmp_path / "store"))


def test_it_stands_on_a_node_as_it_stood_here(tmp_path: Path) -> None:
    root = make(tmp_path / "root", train="print()", sub__run="#!", big="y" * 100)
    (root / "sub" / "run").chmod(0o755)
    (root / "link").symlink_to("sub/run")
    found, store = look(root), BlobStore(tmp_path / "store")
    manifest = add(found, store)
    (root / "train").write_text("changed after it was submitted")
    there = tmp_path / "there"
    code_layout.lay_out(store, manifest, there, executable=found.executable, links=found.links)
    assert (there / "train").read_text() == "print()"
    assert os.access(there / "link", os.X_OK)
    assert not os.access(there / "train", os.X_OK)
    (there / "big").write_text("a script may write to it")
    code_layout.lay_out(store, manifest, tmp_path / "again")
    assert (tmp_path / "again" / "big").read_text() == "y" * 100


@pytest.mark.parametrize(
    ("entries", "links"),
    [
        (["code/../x"], {}),
        (["code/a/x"], {"a": "b"}),
        (["code/a"], {"a": "b"}),
        ([], {"a": "/etc"}),
        ([], {"a": ".."}),
        ([], {"../a": "b"}),
        ([], {"/a": "b"}),
        ([], {"a": ".", "a/b": "c"}),
        ([], {"": "c"}),
    ],
)
def test_a_bundle_that_leads_out_is_refused(
    tmp_path: Path, entries: list[str], links: dict[str, str]
) -> None:
    store = BlobStore(tmp_path / "store")
    sha256, size = store.add_bytes(b"x")
    manifest = Manifest(entries=tuple(Entry(path=p, sha256=sha256, size=size) for p in entries))
    with pytest.raises(IntegrityError):
        code_layout.lay_out(store, manifest, tmp_path / "deep" / "there", links=links)
    assert not (tmp_path / "deep" / "x").exists()


PART = st.sampled_from(["a", "b", ".", "..", "", "/"])


@given(st.lists(PART, max_size=6), st.lists(PART, max_size=6))
def test_a_link_that_is_let_through_ends_inside(path: list[str], to: list[str]) -> None:
    place, target = "/".join(path), "/".join(to)
    try:
        code_layout.check_link(place, target)
    except IntegrityError:
        return
    end = os.path.normpath(Path("/root") / Path(place).parent / target)
    assert end == "/root" or end.startswith("/root/")
