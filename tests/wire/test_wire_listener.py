"""Finding out who listens on a port."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from llamaforge.wire.listener import who_listens


def test_a_listener_is_named_with_its_pid() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"(pid {os.getpid()})" in who_listens(server.getsockname()[1])


def test_ipv6_listeners_are_seen() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert f"(pid {os.getpid()})" in who_listens(server.getsockname()[1])


def test_a_connection_is_not_a_listener() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert who_listens(client.getsockname()[1]) == ""


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert who_listens(1, tmp_path) == ""
