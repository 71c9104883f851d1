"""Mounts a file system whose server never answers, as a dead file server looks to programs.

    python3 hung_mount.py FOLDER

Run inside a node, as root. It ends when its standard output is closed or it is killed; the kernel
then answers everybody who waits with an error.
"""

from __future__ import annotations

import signal
import sys

from network_mount import mount

if __name__ == "__main__":
    mount(sys.argv[1])
    print("mounted", flush=True)
    signal.pause()
