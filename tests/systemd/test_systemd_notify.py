"""sd_notify over a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamaforge.systemd.notify import Notify


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    os.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("notify")
        end.settimeout(5)
        yield end


@pytest.fixture(autouse=True)
def _here() -> Iterator[None]:
    before = Path.cwd()
    yield
    os.chdir(before)


def test_each_word_is_one_datagram(manager: socket.socket) -> None:
    notify = Notify("notify")
    notify.ready()
    notify.status("waiting for\n10.0.0.1")
    notify.status("waiting for\n10.0.0.1")
    notify.alive()
    notify.reloading()
    notify.stopping(12.5)
    heard = [manager.recv(4096).decode() for _ in range(5)]
    assert heard[:3] == ["READY=1", "STATUS=waiting for 10.0.0.1", "WATCHDOG=1"]
    assert heard[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[4] == "STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000"


def test_a_path_that_is_no_text_ends_nothing(manager: socket.socket) -> None:
    Notify("notify").status("HF_HOME=/mnt/\udcff is not there")
    assert manager.recv(4096) == b"STATUS=HF_HOME=/mnt/? is not there"


def test_a_name_in_the_abstract_namespace_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        name = f"llamaforge-test-{os.getpid()}"
        end.bind("\0" + name)
        end.settimeout(5)
        Notify("@" + name).ready()
        assert end.recv(100) == b"READY=1"


def test_the_variables_are_taken_from_the_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1", "A": "b"}
    notify = Notify.from_environment(environ)
    assert environ == {"A": "b"}
    assert notify.listens
    assert notify.watchdog_seconds == 60


def test_without_a_manager_nothing_happens() -> None:
    notify = Notify.from_environment({})
    assert not notify.listens
    notify.ready()
    Notify("/nowhere/to/be/found").ready()
