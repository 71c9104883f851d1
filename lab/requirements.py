"""What a box must have for a lab, asked before anything is made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.errors import LabError

# Tool to the Debian and Fedora package that has it.
_TOOLS = {
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "mount": "mount",
    "dbus-daemon": "dbus",
}


def missing() -> list[str]:
    """What keeps this box from having a lab, each with what to do about it."""
    found = []
    if os.name != "posix" or not Path("/proc/self/ns/mnt").exists():
        return ["a lab needs Linux"]
    if os.geteuid() != 0:
        found.append("root: booting nodes needs it; run it with sudo")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    packages = {package for tool, package in _TOOLS.items() if not shutil.which(tool, path=path)}
    if packages:
        names = " ".join(sorted(packages))
        found.append(f"packages: sudo apt-get install --no-install-recommends {names}")
    if "overlay" not in Path("/proc/filesystems").read_text():
        found.append("overlay file systems: sudo modprobe overlay")
    if not Path("/lib/systemd/systemd").exists():
        found.append("systemd itself (/lib/systemd/systemd): nodes boot the box's own")
    return found


def require() -> None:
    """Raise LabError naming everything that is missing."""
    if found := missing():
        raise LabError("this box can't have a lab; it lacks " + "; ".join(found))
