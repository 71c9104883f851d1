"""What a box must have for a lab, asked before anything is made.

Tools are looked for; what a container or a kernel may refuse is tried, in name spaces of its own.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.commands import CLEAN
from lab.disk import require_one_filesystem
from lab.errors import LabError

# Tool to the Debian package that has it.
_TOOLS = {
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "dbus-daemon": "dbus",
    "/lib/systemd/systemd": "systemd",
}

# A node's disk, as lab.disk makes it: an overlay with the root below, and one over that.
_DISK = """
set -e
mount -t tmpfs lab "$1"
mkdir "$1/hiding" "$1/root" "$1/disk"
mount -t overlay -o "ro,lowerdir=$1/hiding:/" lab "$1/root"
mount -t overlay -o "lowerdir=$1/root,upperdir=$2/upper,workdir=$2/work" lab "$1/disk"
"""

_NETWORK = """
set -e
ip link add lab type bridge
ip link add one type veth peer name two
tc qdisc add dev one root tbf rate 1mbit burst 256kb latency 50ms
nft add table bridge lab
"""


def missing() -> list[str]:
    """What keeps this box from having a lab, each with what to do about it."""
    if not Path("/proc/self/ns/mnt").exists():
        return ["a lab needs Linux"]
    found = []
    if os.geteuid() != 0:
        found.append("root: booting nodes needs it; run it with sudo")
    packages = {
        package for tool, package in _TOOLS.items() if not shutil.which(tool, path=CLEAN["PATH"])
    }
    if packages:
        names = " ".join(sorted(packages))
        found.append(f"packages: sudo apt-get install --no-install-recommends {names}")
    return found or list(_refused())


@functools.cache
def _refused() -> tuple[str, ...]:
    """What this kernel or the container around us does not let us do."""
    found = []
    if (
        not os.access("/sys/fs/cgroup", os.W_OK)
        or os.statvfs("/sys/fs/cgroup").f_flag & os.ST_RDONLY
    ):
        found.append("control groups: /sys/fs/cgroup is read-only, as in most containers")
    try:
        require_one_filesystem()
    except LabError as why:
        found.append(str(why))
    with tempfile.TemporaryDirectory(prefix="llamaforge-lab-", dir="/var/tmp") as folder:
        for name in ("mount", "upper", "work"):
            Path(folder, name).mkdir()
        if said := _tried("--mount", _DISK, f"{folder}/mount", folder):
            found.append(f"overlays of / with layers in /var/tmp: {said}")
    if said := _tried("--net", _NETWORK):
        found.append(f"bridges, veth links, tbf and nftables' bridge family: {said}")
    return tuple(found)


def _tried(space: str, script: str, *words: str) -> str:
    command = ["unshare", "--mount", space, "sh", "-c", script, "try", *words]
    done = subprocess.run(command, env=CLEAN, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or "refused").splitlines()[0] if done.returncode else ""


def require() -> None:
    """Raise LabError naming everything that is missing."""
    if found := missing():
        raise LabError("this box can't have a lab; it lacks " + "; ".join(found))
