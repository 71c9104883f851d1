"""Mounts a folder as a file server would: read-only, over FUSE, answered by this very process.

    python3 network_mount.py FOLDER SOURCE

Run inside a node, as root. SIGSTOP makes it a server that hangs and SIGCONT one that is back;
when it is killed, the mount is gone for everybody who uses it (ENOTCONN), as with a stale handle.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

# Numbers of requests; see include/uapi/linux/fuse.h.
LOOKUP, FORGET, GETATTR, READLINK, OPEN, READ, STATFS = 1, 2, 3, 5, 14, 15, 17
RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 18, 25, 26, 27, 28, 29
ACCESS, INTERRUPT, DESTROY, BATCH_FORGET = 34, 36, 38, 42
SILENT = (FORGET, INTERRUPT, BATCH_FORGET)
WRITES = (4, 6, 8, 9, 10, 11, 12, 13, 16, 35)

HEADER = struct.Struct("<IIQQIIIHH")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
LARGEST = 128 << 10


class Refused(Exception):
    """An error number is the answer."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Server:
    """Answers requests about one folder.

    Args:
        source: the folder that is served.
    """

    def __init__(self, source: Path) -> None:
        self._paths = {1: source}
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            INIT: self._init,
            LOOKUP: self._lookup,
            GETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + self._attributes(node),
            READLINK: lambda node, _: os.fsencode(self._paths[node].readlink()),
            OPEN: lambda _node, _: struct.pack("<QII", 0, 0, 0),
            OPENDIR: lambda _node, _: struct.pack("<QII", 0, 0, 0),
            READ: self._read,
            READDIR: self._list,
            STATFS: lambda _node, _: struct.pack("<5Q4I24x", 9, 9, 9, 9, 9, 4096, 255, 4096, 0),
            **dict.fromkeys((RELEASE, FLUSH, RELEASEDIR, ACCESS), lambda _node, _: b""),
        }

    def serve(self, device: int) -> None:
        """Answers until the mount is taken away."""
        while True:
            request = os.read(device, LARGEST + 4096)
            _, kind, unique, node, *_ = HEADER.unpack_from(request)
            if kind == DESTROY:
                return
            if kind in SILENT:
                continue
            code, body = self._answer(kind, node, request[HEADER.size :])
            os.write(device, struct.pack("<IiQ", 16 + len(body), -code, unique) + body)

    def _answer(self, kind: int, node: int, body: bytes) -> tuple[int, bytes]:
        if kind not in self._answers:
            return errno.EROFS if kind in WRITES else errno.ENOSYS, b""
        try:
            return 0, self._answers[kind](node, body)
        except Refused as why:
            return why.number, b""
        except OSError as why:
            return why.errno or errno.EIO, b""

    def _init(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, LARGEST, 0, 12, 9, LARGEST, 1, 0, 0, 0)

    def _attributes(self, node: int) -> bytes:
        found = self._paths[node].lstat()
        times = [int(found.st_atime), int(found.st_mtime), int(found.st_ctime)]
        owner = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)
        return ATTRIBUTES.pack(node, found.st_size, found.st_blocks, *times, 0, 0, 0, *owner)

    def _lookup(self, parent: int, body: bytes) -> bytes:
        path = self._paths[parent] / os.fsdecode(body.rstrip(b"\0"))
        if not os.path.lexists(path):
            raise Refused(errno.ENOENT)
        node = path.lstat().st_ino + 1
        self._paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self._attributes(node)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        with self._paths[node].open("rb") as file:
            return os.pread(file.fileno(), size, offset)

    def _list(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        answer = b""
        for number, path in enumerate(sorted(self._paths[node].iterdir())[offset:], offset + 1):
            mode, raw = path.lstat().st_mode, os.fsencode(path.name)
            entry = struct.pack("<QQII", 1 << 40, number, len(raw), stat.S_IFMT(mode) >> 12) + raw
            entry += b"\0" * (-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer


def mount(folder: str) -> int:
    """Mounts on `folder`; the file descriptor at which its server is asked."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not Path("/dev/fuse").exists():
        os.mknod("/dev/fuse", stat.S_IFCHR | 0o600, os.makedev(10, 229))
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"nas:/data", folder.encode(), b"fuse.nas", 1, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)
    return device


if __name__ == "__main__":
    handle = mount(sys.argv[1])
    print("mounted", flush=True)
    Server(Path(sys.argv[2])).serve(handle)
