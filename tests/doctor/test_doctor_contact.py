"""Reaching a port, on real sockets, and telling the ways of failing apart."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import certificate
from llamaforge.doctor.contact import Contact, _padding, ask, connect, parse


@pytest.fixture
def server():
    """A server that answers each connection with what a test sets, after reading a request."""
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []
    answer = [b'HTTP/1.1 200 OK\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n{"a": 1}']

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                text = b""
                while b"\r\n\r\n" not in text and (piece := line.recv(65536)):
                    text += piece
                received.append(text)
                line.sendall(answer[0])

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1], received, answer
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_open_and_refused(server) -> None:
    port = server[0]
    assert connect("127.0.0.1", port, 2) is Contact.OPEN
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    assert connect("127.0.0.1", free, 2) is Contact.REFUSED


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ECONNREFUSED, Contact.REFUSED),
        (errno.ECONNRESET, Contact.OPEN),  # closed before we could look
        (errno.ENETUNREACH, Contact.NO_ROUTE),
        (errno.EHOSTUNREACH, Contact.NO_HOST),
        (errno.ETIMEDOUT, Contact.SILENT),
    ],
)
def test_each_failure_has_its_name(number: int, expected: Contact) -> None:
    assert Contact.of(OSError(number, "x")) is expected


def test_an_answer_with_its_clock(server) -> None:
    answer = ask("127.0.0.1", server[0], "/health", padding=0, seconds=2)
    assert answer is not None
    assert (answer.status, answer.json(), answer.date) == (200, {"a": 1}, 1_700_000_000.0)


@pytest.mark.parametrize("size", [200, 1448, 1460, 8948])
def test_a_request_fills_a_packet_exactly(server, size: int) -> None:
    assert ask("127.0.0.1", server[0], "/health", padding=size, seconds=2) is not None
    assert len(server[1][-1]) == size


def test_a_coordinator_is_asked_over_tls_whoever_signed_it(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.make(tmp_path, "somebody"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        asked: list[bytes] = []

        def serve() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as line:
                asked.append(line.recv(65536))
                line.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        answer = ask("127.0.0.1", port, "/health", padding=1000, seconds=5, tls=True)
        thread.join(5)
    assert answer is not None
    assert answer.status == 200
    assert len(asked[0]) == 1000 - 22


@given(st.integers(0, 20000))
def test_padding_has_the_length_asked_for_or_none(length: int) -> None:
    made = _padding(length)
    assert len(made) == length or (length <= 10 and made == "")
    assert all(len(line) <= 1000 for line in made.split("\r\n"))


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"\x00\xff\r\n\r\n"]
)
def test_what_is_no_http_is_no_answer(said: bytes) -> None:
    assert parse(said) is None


def test_a_body_that_is_no_object_is_empty() -> None:
    answer = parse(b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n[1]")
    assert answer is not None
    assert (answer.json(), answer.date) == ({}, None)
