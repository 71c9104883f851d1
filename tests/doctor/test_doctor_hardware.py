"""LF4xx: the machine itself, each fault on a made-up one."""

from __future__ import annotations

import json

import pytest
from doctor_machine import PROGRAM, PYTHON, FakeMachine

from llamaforge.doctor.checks import cgroups, gpu, memory, selinux, sleep, wsl
from llamaforge.doctor.finding import Severity
from llamaforge.service.places import UNIT

GROUP = "/sys/fs/cgroup/system.slice/llamaforge-worker.service"
PLENTY = "MemTotal:  32000000 kB\nMemAvailable: 30000000 kB\nSwapTotal: 9 kB\nSwapFree: 9 kB\n"
ALL = (memory, selinux, cgroups, gpu, wsl, sleep)


@pytest.fixture(autouse=True)
def plenty(machine: FakeMachine) -> None:
    machine.write("/proc/meminfo", PLENTY)
    machine.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")


def test_a_machine_that_is_well_has_no_findings(machine: FakeMachine) -> None:
    assert [f for module in ALL for f in machine.look(module.CHECK)] == []


# ── LF401 ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "file",
    [
        f"{GROUP}/memory.events",
        "/sys/fs/cgroup/memory/system.slice/llamaforge-worker.service/memory.oom_control",
    ],
)
def test_kills_in_the_units_cgroup(machine: FakeMachine, file: str) -> None:
    machine.unit(MemoryMax=str(4 << 30))
    machine.write(file, "low 0\noom 3\noom_kill 2\n")
    (found,) = machine.look(memory.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, UNIT)
    assert "(2 times): they reached its MemoryMax=4.0 GiB" in found.seen
    assert found.fix[0] == "systemctl set-property llamaforge-worker MemoryMax=8192M"


def test_kills_in_the_logs(machine: FakeMachine) -> None:
    seen = json.dumps({"MESSAGE": "A process of this unit has been killed by the OOM killer."})
    machine.says(f"journalctl -u {UNIT} MESSAGE_ID=", seen + "\n")
    kernel = "Out of memory: Killed process 4711 (python3) total-vm:9kB, anon-rss:8kB"
    machine.says("journalctl -k", json.dumps({"MESSAGE": kernel}) + "\n")
    unit, log = machine.look(memory.CHECK)
    assert "hit llamaforge-worker.service 1 times" in unit.seen
    assert "last: 4711 (python3)" in log.seen


def test_little_memory_and_no_swap(machine: FakeMachine) -> None:
    machine.write("/proc/meminfo", "MemTotal:  4000000 kB\nMemAvailable: 1000000 kB\n")
    (found,) = machine.look(memory.CHECK)
    assert found.severity is Severity.WARNING
    assert found.seen.startswith("1.0 of 3.8 GiB of memory are free")
    machine.write("/proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    assert machine.look(memory.CHECK)[0].severity is Severity.NOTE


def test_a_limit_that_is_too_low(machine: FakeMachine) -> None:
    machine.unit(MemoryMax=str(512 << 20))
    (found,) = machine.look(memory.CHECK)
    assert "MemoryMax=0.50 GiB leaves the ranks too little" in found.seen


# ── LF402, LF403 ──────────────────────────────────────────────────────────────────────────────

AVC = (
    'type=AVC msg=audit(1.2:3): avc:  denied  { execute } for  pid=9 comm="(llamaforge)" '
    'name="llamaforge" dev="sda1" scontext=system_u:system_r:init_t:s0\n'
)


@pytest.mark.parametrize(("mode", "severity"), [("1", Severity.ERROR), ("0", Severity.NOTE)])
def test_labels_and_denials(machine: FakeMachine, mode: str, severity: Severity) -> None:
    machine.write("/sys/fs/selinux/enforce", mode)
    machine.says(f"stat -L -c %C -- {PROGRAM}", "unconfined_u:object_r:user_home_t:s0\n")
    machine.says("ausearch", AVC)
    label, denial = machine.look(selinux.CHECK)
    assert {label.severity, denial.severity} == {severity}
    assert "has the SELinux label user_home_t" in label.seen
    assert denial.seen.endswith("1 times lately, last: (llamaforge) execute llamaforge")


def test_right_labels_are_fine(machine: FakeMachine) -> None:
    machine.write("/sys/fs/selinux/enforce", "1")
    machine.says(f"stat -L -c %C -- {PROGRAM}", "system_u:object_r:bin_t:s0\n")
    machine.says("journalctl _TRANSPORT=audit", AVC.replace("llamaforge", "httpd"))
    assert machine.look(selinux.CHECK) == []


def test_a_kernel_without_the_memory_controller(machine: FakeMachine) -> None:
    machine.write("/sys/fs/cgroup/cgroup.controllers", "cpu pids\n")
    assert machine.look(cgroups.CHECK)[0].severity is Severity.NOTE
    machine.unit(MemoryMax=str(1 << 34))
    machine.write("/boot/firmware/cmdline.txt", "console=tty1")
    (found,) = machine.look(cgroups.CHECK)
    assert found.severity is Severity.WARNING
    assert "/boot/firmware/cmdline.txt" in found.fix[0]


# ── LF404 ─────────────────────────────────────────────────────────────────────────────────────

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.54.03  Tue\n"


def card(machine: FakeMachine, vendor: str) -> None:
    machine.write("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
    machine.write("/sys/bus/pci/devices/0000:01:00.0/vendor", vendor + "\n")


def driver(machine: FakeMachine, version: int, cuda: str = "12.8 True") -> None:
    card(machine, "0x10de")
    machine.write("/proc/driver/nvidia/version", DRIVER.format(version))
    machine.write("/dev/nvidia0", "")
    machine.write("/dev/nvidia-uvm", "")
    machine.says(f"runuser -u llamaforge -- {PYTHON}", f"cuda {cuda}\n")


def test_a_card_that_works(machine: FakeMachine) -> None:
    driver(machine, 550)
    assert machine.look(gpu.CHECK) == []


def test_nouveau_and_no_driver(machine: FakeMachine) -> None:
    card(machine, "0x10de")
    assert machine.look(gpu.CHECK)[0].about == "NVIDIA"
    machine.write("/proc/modules", "nouveau 2306048 4 - Live 0x0\n")
    (found,) = machine.look(gpu.CHECK)
    assert (found.severity, found.about) == (Severity.WARNING, "nouveau")


def test_devices_that_are_missing(machine: FakeMachine) -> None:
    driver(machine, 550)
    machine.path("/dev/nvidia-uvm").unlink()
    (found,) = machine.look(gpu.CHECK)
    assert (found.about, found.fix[0]) == ("/dev/nvidia-uvm", "nvidia-modprobe -u -c=0")
    machine.path("/dev/nvidia0").unlink()
    assert machine.look(gpu.CHECK)[0].about == "/dev/nvidia0"


def test_a_device_that_is_closed_to_the_user(machine: FakeMachine) -> None:
    driver(machine, 550)
    machine.stat("/dev/nvidia0", "character special file|660|root|video|0")
    machine.says("runuser -u llamaforge -- test -r /dev/nvidia0", code=1)
    (found,) = machine.look(gpu.CHECK)
    assert found.fix[0] == "usermod -aG video llamaforge"
    machine.unit(SupplementaryGroups="render video")
    assert machine.look(gpu.CHECK) == []


@pytest.mark.parametrize(
    ("version", "cuda", "severity", "seen"),
    [
        (520, "12.8 False", Severity.ERROR, "520 is older than torch's CUDA 12.8 needs (525)"),
        (570, "13.0 False", Severity.ERROR, "needs (580)"),
        (550, "None False", Severity.NOTE, "for the CPU only"),
        (550, "12.8 False", Severity.ERROR, "torch finds no card all the same"),
    ],
)  # fmt: skip
def test_driver_and_torch_that_do_not_fit(
    machine: FakeMachine, version: int, cuda: str, severity: Severity, seen: str
) -> None:
    driver(machine, version, cuda)
    (found,) = machine.look(gpu.CHECK)
    assert found.severity is severity
    assert seen in found.seen


def test_the_open_driver_says_its_version_in_another_place() -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\n"
    assert gpu.driver(text) == 575


# ── LF405, LF406 ──────────────────────────────────────────────────────────────────────────────


def test_wsl_without_systemd(machine: FakeMachine) -> None:
    machine.write("/proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n")
    (found, _) = machine.look(wsl.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, "/etc/wsl.conf")
    assert found.fix[0] == "printf '[boot]\\nsystemd=true\\n' | tee -a /etc/wsl.conf"
    machine.write("/etc/wsl.conf", "[boot]\ncommand=x\n[user]\nsystemd=true\n")
    assert machine.look(wsl.CHECK)[0].fix[0].startswith("sed -i")
    machine.write("/etc/wsl.conf", "[boot]\nsystemd=true\n")
    assert machine.look(wsl.CHECK)[0].fix == ("wsl.exe --shutdown",)
    machine.write("/run/systemd/system/x", "")
    assert [f.severity for f in machine.look(wsl.CHECK)] == [Severity.NOTE]


def test_a_laptop_that_may_sleep(machine: FakeMachine) -> None:
    machine.write("/sys/class/power_supply/BAT0/type", "Battery\n")
    machine.says("systemctl is-enabled", "static\nstatic\n", 0)
    (found,) = machine.look(sleep.CHECK)
    assert found.fix == (
        "systemctl mask sleep.target suspend.target hibernate.target hybrid-sleep.target",
    )
    machine.says("systemctl is-enabled", "masked\nmasked\n", 1)
    assert machine.look(sleep.CHECK) == []
