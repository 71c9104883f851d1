"""The worker's unit on a real machine: as installed, and copied and edited by hand."""

from __future__ import annotations

import json
import re

import pytest
from lab_service import properties

from lab import Lab, Node

UNIT = "llamaforge-worker.service"
SHIPPED = "/srv/llamaforge/packaging/systemd"
OWN = f"/etc/systemd/system/{UNIT}"
UNIT_DROPINS = f"{OWN}.d"


def by_hand(node: Node, *edits: tuple[str, str]) -> None:
    """Copies the unit, edits it, starts it: what the guide tells a person to do."""
    node.shell("systemd-sysusers /srv/llamaforge/packaging/sysusers.d/llamaforge.conf")
    text = node.read(f"{SHIPPED}/{UNIT}")
    for old, new in edits:
        text, found = re.subn(old, lambda _, new=new: new, text, flags=re.MULTILINE)
        assert found == 1, f"{old} stands {found} times in the unit"
    node.write(OWN, text)
    node.shell("systemctl daemon-reload && systemctl enable --now llamaforge-worker")


def exposure(node: Node, unit: str = UNIT) -> float:
    said = node.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    return float(found[1])


def test_the_shipped_unit_works_as_it_is(installed_node: Node) -> None:
    node = installed_node
    by_hand(node)
    now = properties(node, "ActiveState", "Type", "User", "NRestarts", "MainPID", "StatusText")
    assert (now["ActiveState"], now["User"], now["NRestarts"]) == ("active", "llamaforge", "0")
    assert now["StatusText"]
    assert exposure(node) <= 2.0
    verified = node.run("systemd-analyze", "verify", UNIT)
    assert verified.stdout + verified.stderr == ""
    # no token file: the credential's default, and not a failed unit
    status = node.read(f"/proc/{now['MainPID']}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)


def test_a_persons_folders_by_the_documented_drop_in(installed_node: Node) -> None:
    """The guide's own values: a person's User, WorkingDirectory in /home, HF_HOME in /mnt."""
    node = installed_node
    node.shell(
        "useradd --create-home alice && install -d -o alice -g alice /home/alice/training"
        " /mnt/models && mkdir -p /etc/systemd/system/llamaforge-worker.service.d"
        f" && cp {SHIPPED}/paths.conf /etc/systemd/system/llamaforge-worker.service.d/20-paths.conf"
    )
    by_hand(
        node,
        (r"^User=.*$", "User=alice"),
        (r"^Group=.*$", "Group=alice"),
        (r"^WorkingDirectory=.*$", "WorkingDirectory=/home/alice/training"),
        (r"^#Environment=HF_HOME=.*$", "Environment=HF_HOME=/mnt/models"),
        (r"^#Environment=MASTER_ADDR.*$", "Environment=MASTER_ADDR=192.0.2.1 NODE_RANK=1"),
    )
    now = properties(node, "ActiveState", "MainPID", "StatusText")
    assert now["ActiveState"] == "active"
    assert "192.0.2.1" in now["StatusText"]
    pid = now["MainPID"]
    assert node.run("ps", "-o", "user=", "-p", pid).stdout.strip() == "alice"
    assert node.run("readlink", f"/proc/{pid}/cwd").stdout.strip() == "/home/alice/training"
    written = (
        f"nsenter -t {pid} -m -- runuser -u alice -- touch /mnt/models/x /home/alice/training/x"
    )
    node.shell(written)
    assert exposure(node) <= 2.0


TORCHRUN = (
    " /opt/llamaforge/current/bin/python3 -m torch.distributed.run"
    " --nproc_per_node=1 --nnodes=2 --node_rank=1 --master_addr=127.0.0.1 --master_port=29500"
    " /opt/llamaforge/current/share/llamaforge/distributed_train.py --model tiny --dataset x.jsonl"
)


@pytest.mark.parametrize(
    "before", ["/usr/bin/taskset -c 0", "/usr/bin/numactl --physcpubind=0 --membind=0"]
)
def test_a_torchrun_line_is_ready_and_not_killed_by_the_watchdog(
    installed_node: Node, before: str
) -> None:
    node = installed_node
    if node.shell(f"test -x {before.split()[0]}", check=False).returncode != 0:
        pytest.skip(f"{before.split()[0]} is not on this machine")
    by_hand(
        node,
        (r"^ExecStart=.*$", f"ExecStart={before}{TORCHRUN}"),
        (r"^WatchdogSec=.*$", "WatchdogSec=2s"),
    )
    begun = properties(node, "ActiveState", "MainPID", "StatusText")
    assert begun["ActiveState"] == "active"
    assert "torchrun" in begun["StatusText"]
    node.run("sleep", "5")  # more than twice the watchdog's patience
    now = properties(node, "ActiveState", "MainPID", "NRestarts", "WatchdogUSec")
    assert (now["MainPID"], now["NRestarts"]) == (begun["MainPID"], "0")
    affinity = node.read(f"/proc/{now['MainPID']}/status")
    assert re.search(r"^Cpus_allowed_list:\s+0$", affinity, re.MULTILINE)


def test_a_missing_group_fails_a_unit_and_ours_names_none(installed_node: Node) -> None:
    """Why SupplementaryGroups=render is not in the unit."""
    node = installed_node
    node.shell("groupdel render 2>/dev/null || true")
    node.shell("systemd-sysusers /srv/llamaforge/packaging/sysusers.d/llamaforge.conf")
    node.write(OWN, node.read(f"{SHIPPED}/{UNIT}"))
    folder = UNIT_DROPINS
    node.shell(f"mkdir -p {folder}")
    node.write(f"{folder}/50.conf", "[Service]\nSupplementaryGroups=render\nRestart=no\n")
    started = node.shell("systemctl daemon-reload; systemctl start llamaforge-worker", check=False)
    assert started.returncode != 0
    assert properties(node, "ExecMainStatus")["ExecMainStatus"] == "216"  # GROUP
    node.shell(f"rm {folder}/50.conf; systemctl daemon-reload; systemctl reset-failed")
    node.run("llamaforge", "worker", "install")
    assert properties(node, "ActiveState")["ActiveState"] == "active"
    assert "render" not in properties(node, "SupplementaryGroups")["SupplementaryGroups"]


def test_gpus_are_reached_as_far_as_that_can_be_tried_without_one(installed_node: Node) -> None:
    """Root makes nvidia-uvm before the start, and the group of a device file opens it."""
    node = installed_node
    node.write(
        "/usr/bin/nvidia-modprobe",
        '#!/bin/sh\necho "$(id -u) $* $(grep NoNewPrivs /proc/self/status)" >/run/modprobe\n',
        mode=0o755,
    )
    node.shell("getent group render || groupadd --system render")
    node.shell("install -m 0640 -g render /dev/null /srv/card")
    node.run("llamaforge", "worker", "install")
    assert node.read("/run/modprobe").split() == ["0", "-u", "-c=0", "NoNewPrivs:", "0"]
    now = properties(node, "SupplementaryGroups", "DevicePolicy", "DeviceAllow", "PrivateDevices")
    assert "render" in now["SupplementaryGroups"].split()
    assert (now["DevicePolicy"], now["PrivateDevices"]) == ("closed", "no")
    assert "char-nvidia" in now["DeviceAllow"]
    node.write(
        f"{UNIT_DROPINS}/90-try.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\n"
        "ExecStart=\nExecStart=/bin/cat /srv/card\n",
    )
    node.shell("systemctl daemon-reload; systemctl restart llamaforge-worker")
    node.write(f"{UNIT_DROPINS}/91-no-group.conf", "[Service]\nSupplementaryGroups=\n")
    refused = node.shell(
        "systemctl daemon-reload; systemctl restart llamaforge-worker", check=False
    )
    assert refused.returncode != 0


TRY_TORCH = """
import json, mmap, os, sys
import torch
from multiprocessing import shared_memory

said = {"torch": torch.__version__}
a = torch.randn(64, 64, dtype=torch.bfloat16)
said["matmul"] = bool(torch.isfinite(a @ a).all())
shared = torch.ones(1000).share_memory_()
said["shared"] = bool(shared.is_shared())
block = shared_memory.SharedMemory(create=True, size=1 << 20)
said["shm"] = os.path.exists("/dev/shm/" + block.name)
block.close(); block.unlink()
said["cpuinfo"] = "processor" in open("/proc/cpuinfo").read()
said["memory"] = "MemTotal" in open("/proc/meminfo").read()
writable = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
said["jit"] = True
try:
    said["compiled"] = float(torch.compile(lambda x: (x * 2 + 1).sum())(torch.ones(8)))
except Exception as why:
    said["compiled"] = repr(why)[:500]
with open("out.json", "w") as out:
    json.dump(said, out)
"""


def test_torch_computes_under_the_units_restrictions(lab: Lab) -> None:
    node = lab.add("torch", image="installed")
    node.boot()
    by_hand(node)
    node.run("systemctl", "stop", UNIT)
    node.write("/srv/try.py", TRY_TORCH)
    node.shell(f"mkdir -p {UNIT_DROPINS}")
    node.write(
        f"{UNIT_DROPINS}/50.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
        "Environment=TORCHINDUCTOR_CACHE_DIR=/var/cache/llamaforge/inductor\n"
        "ExecStart=/opt/llamaforge/current/bin/python3 /srv/try.py\n",
    )
    node.shell("systemctl daemon-reload; systemctl start llamaforge-worker", timeout=200)
    said = json.loads(node.read("/var/lib/llamaforge/out.json"))
    compiled = said.pop("compiled")
    assert said.pop("torch")
    assert said == dict.fromkeys(("matmul", "shared", "shm", "cpuinfo", "memory", "jit"), True)
    if node.shell("command -v g++", check=False).returncode != 0:
        pytest.skip("torch.compile was not tried: there is no C++ compiler here")
    assert compiled == 24.0
    node.power_cut()
