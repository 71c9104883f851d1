"""Models and data on a file server: used as any other folder, named when the server is gone.

The kernel of most boxes that run these tests serves no NFS inside a node, so the file server is a
process (network_mount.py) that hangs when it is stopped. With a real NFS server the last test does
the same between two machines.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from lab_fleet import Fleet
from lab_service import UNIT, active, main_pid, ranks, show, status, until_waiting

from lab import Lab, Node
from lab.node import Child

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SERVED = "/srv/files"
MOUNT = "/mnt/nas"
HF_HOME = f"{MOUNT}/hf"
HANGS = f"not ready: {HF_HOME} does not answer: fuse.nas nas:/data on {MOUNT} hangs"
TINY = "/opt/llamaforge/current/lib/python3*/site-packages/llamaforge/shipped/tiny-llama"


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Fleet:
    """A coordinator's host and a worker; both have a folder to serve."""
    head, node = (lab.add(name, image="installed") for name in ("head", "node1"))
    lab.boot()
    fleet = Fleet(head)
    for machine in (head, node):
        machine.shell(
            f"mkdir -p {SERVED}/hf && cp -rL {TINY} {SERVED}/tiny && chmod -R a+rX {SERVED}"
        )
        machine.write(f"{SERVED}/rows.jsonl", head.read("/srv/jobs/rows.jsonl"))
    return fleet


@pytest.fixture(scope="module")
def node(fleet: Fleet, server: Server) -> Node:
    """The worker, which has its HF_HOME on the mount."""
    (node,) = fleet.workers
    return node


class Server:
    """The file server of one machine, and its mount."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._process: Child | None = None

    def begin(self) -> None:
        """Mounts."""
        words = ("python3", "/srv/llamaforge/tests/lab/network_mount.py", MOUNT, SERVED)
        self._process = self.node.spawn(*words)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "mounted\n"

    def signal(self, number: int) -> None:
        """19 makes it hang, 18 answer, 9 be gone."""
        assert self._process is not None
        self._process.send_signal(number)


@pytest.fixture(scope="module")
def server(fleet: Fleet, lab: Lab) -> Iterator[Server]:
    """The worker's mount, there before the service is installed."""
    server = Server(lab.nodes["node1"])
    server.begin()
    fleet.join(lab.nodes["node1"], "--hf-home", HF_HOME)
    yield server
    server.signal(18)


def health(node: Node) -> dict[str, object]:
    """What the worker's port says, asked with little patience."""
    code = (
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=3).read().decode())"
    )
    url = f"http://{node.address}:29500/health"
    answer: dict[str, object] = json.loads(node.run("python3", "-c", code, url).stdout)
    return answer


def told(node: Node, word: str) -> list[str]:
    return [str(line["MESSAGE"]) for line in node.journal(UNIT) if word in str(line["MESSAGE"])]


def test_model_and_data_set_on_a_mount_train_as_from_a_disk(fleet: Fleet, node: Node) -> None:
    Server(fleet.head).begin()
    proofs = []
    for place in (SERVED, MOUNT):
        # Later words win: these stand for those that every job of the lab gets.
        words = f"--model {place}/tiny --dataset {place}/rows.jsonl"
        job = fleet.train(f"from{place.replace('/', '-')}", 30, words)
        job.until_step(1)
        if place == MOUNT:
            (pid,) = ranks(node)
            environ = node.shell(f"tr '\\0' '\\n' < /proc/{pid}/environ").stdout
            assert f"HF_HOME={HF_HOME}\n" in environ
        proofs.append(job.end())
    assert proofs[0]["weights_sha256"] == proofs[1]["weights_sha256"]
    assert proofs[0]["order_sha256"] == proofs[1]["order_sha256"]


def test_a_mount_that_hangs_at_the_start_is_named_and_waited_for(
    fleet: Fleet, node: Node, server: Server
) -> None:
    node.write(f"/run/systemd/system/{UNIT}.service.d/90-test.conf", "[Service]\nWatchdogSec=4s\n")
    node.run("systemctl", "daemon-reload")
    server.signal(19)
    began = time.monotonic()
    node.run("systemctl", "restart", UNIT)  # READY comes in spite of it
    node.wait_for(lambda: HANGS in status(node), seconds=30, what="the status names the mount")
    assert time.monotonic() - began < 30
    assert active(node)
    pid = main_pid(node)
    assert len(told(node, "does not answer")) == 1  # once, not every few seconds
    answer = health(node)
    assert (answer["ready"], answer["status"]) == (False, status(node))
    fed = show(node, "WatchdogTimestampMonotonic")
    node.wait_for(
        lambda: int(show(node, "WatchdogTimestampMonotonic")) > int(fed) + 12_000_000,
        seconds=30,
        what="the watchdog was fed for three times its patience",
    )
    assert (main_pid(node), show(node, "NRestarts")) == (pid, "0")
    threads = int(node.shell(f"ls /proc/{pid}/task | wc -l").stdout)
    assert threads < 8  # no pile of threads that wait for the server

    found = node.run("llamaforge", "doctor", "--json", "--only", "LF110", check=False, timeout=120)
    (finding,) = json.loads(found.stdout)["findings"]
    assert (finding["about"], finding["severity"]) == (MOUNT, "error")
    assert f"HF_HOME ({HF_HOME}) is on it" in finding["seen"]

    server.signal(18)
    until_waiting(node)
    assert main_pid(node) == pid
    assert told(node, "nothing is missing any more")
    fleet.until_all_wait()
    fleet.train("after", 5).end()
    assert len(told(node, "does not answer")) == 1


def test_a_worker_that_waits_for_a_mount_can_be_stopped(node: Node, server: Server) -> None:
    server.signal(19)
    node.run("systemctl", "restart", UNIT)
    node.wait_for(lambda: HANGS in status(node), seconds=30, what="the status names the mount")
    node.run("systemctl", "stop", UNIT, timeout=60)
    assert show(node, "Result") == "success"
    server.signal(18)
    node.run("systemctl", "start", UNIT)
    until_waiting(node)


def test_a_server_that_is_gone_is_named_until_it_is_mounted_again(
    node: Node, server: Server
) -> None:
    server.signal(9)
    node.run("systemctl", "restart", UNIT)
    node.wait_for(
        lambda: f"HF_HOME={HF_HOME} can't be read" in status(node), seconds=30, what="it says so"
    )
    node.run("umount", "-l", MOUNT)
    node.wait_for(
        lambda: f"HF_HOME={HF_HOME} is not there" in status(node), seconds=30, what="it says so"
    )
    server.begin()
    until_waiting(node)


def test_a_hung_mount_of_real_nfs_is_named(lab: Lab, fleet: Fleet, node: Node) -> None:
    """For boxes whose kernel has an NFS client and that have the NFS server nfs-ganesha."""
    kernel = node.read("/proc/filesystems").split()
    programs = ("mount.nfs4", "ganesha.nfsd")
    lacking = [name for name in programs if node.run("which", name, check=False).returncode]
    if "nfs4" not in kernel or lacking:
        lacks = ["an NFS client in the kernel"] if "nfs4" not in kernel else []
        pytest.skip("this box has not: " + ", ".join(lacks + lacking))
    files = lab.add("files", image="installed")
    files.boot()
    files.write("/etc/ganesha.conf", GANESHA)
    files.shell("mkdir -p /srv/share/hf /run/ganesha && chmod -R 777 /srv/share && rpcbind")
    files.spawn("ganesha.nfsd", "-F", "-f", "/etc/ganesha.conf", "-L", "/var/log/ganesha.log")
    node.run("mkdir", "-p", "/mnt/nfs")
    mount = ("mount", "-t", "nfs4", f"{files.address}:/share", "/mnt/nfs")
    node.wait_for(
        lambda: node.run(*mount, check=False).returncode == 0, seconds=60, what="NFS is mounted"
    )
    node.run("llamaforge", "worker", "install", "--hf-home", "/mnt/nfs/hf", timeout=120)
    until_waiting(node)
    fleet.until_all_wait()
    fleet.train("with-nfs", 5).end()
    files.unplug()
    node.run("systemctl", "restart", UNIT)
    node.wait_for(
        lambda: "nfs4" in status(node) and "hangs" in status(node), seconds=60, what="it is named"
    )
    files.replug()
    until_waiting(node, seconds=120)


GANESHA = """
EXPORT {
  Export_Id = 1; Path = /srv/share; Pseudo = /share; Access_Type = RW;
  Squash = None; Protocols = 4; SecType = sys; FSAL { Name = VFS; }
}
"""
