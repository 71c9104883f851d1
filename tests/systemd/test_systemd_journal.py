"""Journal entries, read back from a real socket in the journal's own format."""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.systemd.journal import (
    JournalHandler,
    encoded,
    fields,
    is_standard_error,
    priority,
)


def decoded(entry: bytes) -> dict[str, str]:
    """The fields of an entry, by the journal's documentation."""
    found = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", entry[:8])
            value, entry = entry[8 : 8 + size], entry[9 + size :]
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "j"))
        end.settimeout(5)
        yield end


@pytest.fixture
def log(journal: socket.socket, tmp_path: Path) -> Iterator[logging.Logger]:
    handler = JournalHandler("llamaforge-worker", str(tmp_path / "j"))
    logger = logging.Logger("llamaforge.test")
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_an_entry_has_message_priority_and_our_fields(
    journal: socket.socket, log: logging.Logger
) -> None:
    log.warning("rank %d: %s", 3, "two\nlines", extra=fields(job="j1", rank=3, step=0, note=None))
    entry = decoded(journal.recv(1 << 16))
    assert entry["MESSAGE"] == "rank 3: two\nlines"
    assert entry["PRIORITY"] == "4"
    assert entry["SYSLOG_IDENTIFIER"] == "llamaforge-worker"
    assert entry["LLAMAFORGE_JOB"] == "j1"
    assert (entry["LLAMAFORGE_RANK"], entry["LLAMAFORGE_STEP"]) == ("3", "0")
    assert "LLAMAFORGE_NOTE" not in entry


def test_an_entry_too_big_for_a_datagram_goes_through_a_file(
    journal: socket.socket, log: logging.Logger
) -> None:
    log.info("x" * 3_000_000)
    _, rights, _, _ = journal.recvmsg(10, socket.CMSG_SPACE(4))
    handle = array.array("i", rights[0][2])[0]
    with os.fdopen(handle, "rb") as file:
        file.seek(0)
        assert decoded(file.read())["MESSAGE"] == "x" * 3_000_000


def test_without_a_journal_the_words_go_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.Logger("llamaforge.test")
    logger.addHandler(JournalHandler("x", str(tmp_path / "nobody")))
    logger.info("still said")
    assert capsys.readouterr().err == "still said\n"


@given(st.text(st.characters(blacklist_categories=("Cs",))))
def test_any_text_comes_back(text: str) -> None:
    assert decoded(encoded("MESSAGE", text)) == {"MESSAGE": text}


def test_levels_become_syslogs_priorities() -> None:
    assert [priority(level) for level in (10, 20, 30, 40, 50)] == [7, 6, 4, 3, 2]


def test_the_journal_is_recognised_by_device_and_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_standard_error({})
    assert not is_standard_error({"JOURNAL_STREAM": "1:2"})
    with Path(os.devnull).open("w") as null:  # pytest may have replaced standard error
        monkeypatch.setattr(sys, "stderr", null)
        stat = os.fstat(null.fileno())
        assert is_standard_error({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"})
