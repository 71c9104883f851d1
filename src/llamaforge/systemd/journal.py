"""Log records as journal entries with fields, so that `journalctl LLAMAFORGE_JOB=…` finds them.

Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. One datagram is one entry; one that is too
big for a datagram goes through a sealed memory file.
"""

from __future__ import annotations

import array
import errno
import fcntl
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
PREFIX = "LLAMAFORGE_"
"""Of the names of our own fields: LLAMAFORGE_JOB, _GENERATION, _RANK, _STEP."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def is_standard_error(environ: Mapping[str, str]) -> bool:
    """Whether our standard error is connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        here = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or replaced by something without a descriptor
        return False
    return (device, inode) == (str(here.st_dev), str(here.st_ino))


def fields(**values: object) -> dict[str, dict[str, str]]:
    """`log.info("…", extra=fields(job=…, rank=…))`; None and "" are left out."""
    kept = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return {"fields": kept}


class JournalHandler(logging.Handler):
    """Sends records to the journal; where it does not answer, to standard error.

    Args:
        identifier: SYSLOG_IDENTIFIER of every entry.
        path: the journal's socket.
    """

    def __init__(self, identifier: str, path: str = SOCKET) -> None:
        super().__init__()
        self._identifier, self._path = identifier, path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record. Blocks while the journal is behind: nothing is dropped."""
        try:
            entry = self._entry(record)
            try:
                self._socket.sendto(entry, self._path)
            except OSError as why:
                if why.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_file(entry)
        except Exception:  # noqa: BLE001 - logging must not end what it logs
            self._to_standard_error(record)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        ours: Mapping[str, str] = getattr(record, "fields", {})
        values = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            **{PREFIX + name.upper(): value for name, value in ours.items()},
        }
        return b"".join(encoded(name, value) for name, value in values.items())

    def _send_file(self, entry: bytes) -> None:
        handle = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = memoryview(entry)
            while rest:
                rest = rest[os.write(handle, rest) :]
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]).tobytes())
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(handle)

    def _to_standard_error(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - nowhere is left to say it
            self.handleError(record)


def encoded(name: str, value: str) -> bytes:
    """One field; a value with line breaks is preceded by its length (little-endian, 64 bits)."""
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


def priority(level: int) -> int:
    """syslog's number for a level of `logging`."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)
