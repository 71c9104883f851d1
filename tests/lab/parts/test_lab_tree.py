"""A node's links are followed inside the node, whatever they point to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import LabError
from lab.tree import home_of, inside, number_of, write


def test_an_absolute_link_stays_inside(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/secret").symlink_to("/etc/passwd")
    assert inside(tmp_path, "/etc/secret") == tmp_path / "etc/passwd"


def test_links_in_the_middle_and_upwards_stay_inside(tmp_path: Path):
    (tmp_path / "opt/versions/1").mkdir(parents=True)
    (tmp_path / "opt/current").symlink_to("versions/1")
    (tmp_path / "up").symlink_to("../../../opt")
    assert inside(tmp_path, "opt/current/bin/x") == tmp_path / "opt/versions/1/bin/x"
    assert inside(tmp_path, "/up/current/../2") == tmp_path / "opt/versions/2"


def test_a_loop_is_an_error(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(LabError, match="/a is a loop of links"):
        inside(tmp_path, "/a")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    me = f"{os.getuid()}:{os.getgid()}"
    (tmp_path / "etc/passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nme:x:{me}::/home/me:/bin/sh\n"
    )
    (tmp_path / "etc/group").write_text(f"root:x:0:\nus:x:{os.getgid()}:\n")
    return tmp_path


def test_accounts_are_the_nodes_own(node: Path):
    assert number_of(node, "passwd", "me") == os.getuid()
    assert number_of(node, "group", "17") == 17
    assert home_of(node, "me") == (os.getuid(), "/home/me")
    with pytest.raises(LabError, match="no user 'you'"):
        home_of(node, "you")
    with pytest.raises(LabError, match="no 'them' in /etc/group"):
        number_of(node, "group", "them")


def test_a_file_is_replaced_whole_with_its_mode(node: Path):
    write(node, "/deep/er/file", "one", 0o644, "me:us")
    write(node, "/deep/er/file", "two", 0o600, "me:us")
    assert (node / "deep/er/file").read_text() == "two"
    assert (node / "deep/er/file").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (node / "deep/er").iterdir()] == ["file"]
