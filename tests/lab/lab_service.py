"""The worker's service on a node of the lab, as its administrator sees it."""

from __future__ import annotations

from lab import Node

UNIT = "llamaforge-worker"
LISTING = (
    "find /etc /usr/local /opt /var/lib /var/cache /var/log /home /run/llamaforge -xdev"
    " ! -path '/var/log/journal/*' ! -path '/var/lib/systemd/*' ! -path '/opt/llamaforge/*'"
    " ! -path '*/__pycache__*' ! -name '.*.lock' ! -name '.updated'"
    " ! -name '*shadow-' ! -name 'passwd-' ! -name 'group-' ! -name 'subuid-' ! -name 'subgid-'"
    " -printf '%p %M %u %g %l\\n' 2>/dev/null | LC_ALL=C sort"
    " && cat /etc/passwd /etc/group"
)
"""Lists what an installation may leave anywhere on a machine, accounts included."""


def install(node: Node, *options: str) -> None:
    """`llamaforge worker install`, and wait until the worker waits."""
    node.run("llamaforge", "worker", "install", *options, timeout=120)
    until_waiting(node)


def show(node: Node, name: str) -> str:
    """One property of the unit."""
    return node.run("systemctl", "show", UNIT, "-P", name).stdout.strip()


def properties(node: Node, *names: str, unit: str = UNIT) -> dict[str, str]:
    """Several properties of a unit."""
    said = node.run("systemctl", "show", unit, "--property", ",".join(names)).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def status(node: Node) -> str:
    """The line that the worker has told systemd."""
    return show(node, "StatusText")


def active(node: Node) -> bool:
    """What `systemctl is-active` says."""
    return node.run("systemctl", "is-active", UNIT, check=False).stdout.strip() == "active"


def is_waiting(node: Node) -> bool:
    """Whether the worker is up and waits for a job."""
    return active(node) and status(node).startswith("waiting")


def until_waiting(node: Node, seconds: float = 30) -> None:
    """Waits for a waiting worker."""
    node.wait_for(lambda: is_waiting(node), seconds=seconds, what="the worker waits")


def main_pid(node: Node) -> int:
    """The worker's process id, as the node counts."""
    return int(show(node, "MainPID"))


def processes(node: Node) -> dict[int, str]:
    """Process id and command line of everything in the unit's control group."""
    listed = node.shell(
        f"cat /sys/fs/cgroup/systemd/system.slice/{UNIT}.service/cgroup.procs 2>/dev/null"
        f" || cat /sys/fs/cgroup/system.slice/{UNIT}.service/cgroup.procs",
        check=False,
    ).stdout.split()
    lines = node.run("ps", "-o", "pid=,args=", "-p", ",".join(listed or ["0"]), check=False).stdout
    return {int(line.split()[0]): line.split(None, 1)[1] for line in lines.splitlines()}


def ranks(node: Node) -> dict[int, str]:
    """Those of them that are training processes."""
    return {pid: args for pid, args in processes(node).items() if "torch rank" in args}


def limits_memory(node: Node) -> bool:
    """Whether this box's control groups let units of a node have limits (see lab/cgroups.py)."""
    limits = "/sys/fs/cgroup/memory/system.slice /sys/fs/cgroup/system.slice/memory.max"
    return node.shell(f"ls -d {limits}", check=False).stdout.strip() != ""
