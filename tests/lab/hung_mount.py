"""Mounts a file system whose server never answers, as a dead file server looks to programs.

    python3 hung_mount.py FOLDER

Run inside a node, as root. It ends when its standard output is closed or it is killed; the kernel
then answers everybody who waits with an error.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
from pathlib import Path


def mount(folder: str) -> int:
    """Mounts on `folder`; the file descriptor of the server that never reads its requests."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not Path("/dev/fuse").exists():
        os.mknod("/dev/fuse", stat.S_IFCHR | 0o600, os.makedev(10, 229))
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"nas:/data", folder.encode(), b"fuse.nas", 0, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)
    return server


if __name__ == "__main__":
    mount(sys.argv[1])
    print("mounted", flush=True)
    signal.pause()
