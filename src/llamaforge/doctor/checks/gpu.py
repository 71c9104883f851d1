"""LF404: a graphics card that is there can be used, by the service's user too.

Each trap on its own: no driver, nouveau instead of it, a driver without its uvm device (nothing
makes it before CUDA asks, and the service may not), a device closed to the user, a driver that is
older than torch's CUDA. A machine without a card is fine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamaforge.doctor.check import Check
from llamaforge.doctor.finding import Finding, error, note, warning
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject

NVIDIA, AMD = "0x10de", "0x1002"
NEEDS = ((13, 580), (12, 525), (11, 450))
"""CUDA's major version and the oldest driver that runs it (CUDA compatibility guide, table 2)."""
INSTALL = "sudo apt-get install nvidia-driver || sudo dnf install akmod-nvidia"
_ASK_TORCH = "import torch; print('cuda', torch.version.cuda, torch.cuda.is_available())"


def look(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Looks at cards, kernel modules, devices and torch."""
    cards = _cards(machine)
    loaded = machine.read("/proc/driver/nvidia/version")
    if loaded is not None:
        yield from _devices(machine, subject)
        yield from _torch(machine, subject, driver(loaded))
    elif NVIDIA in cards:
        yield from _no_driver(machine)
    if AMD in cards and machine.has("/dev/kfd"):
        yield from _open(machine, subject, "/dev/kfd", "render")


def _cards(machine: Machine) -> set[str]:
    """Vendors of the PCI devices of class display."""
    found = set()
    for name in machine.listed("/sys/bus/pci/devices/*"):
        if (machine.read(f"{name}/class") or "").startswith("0x03"):
            found.add((machine.read(f"{name}/vendor") or "").strip())
    return found


def _no_driver(machine: Machine) -> Iterator[Finding]:
    if re.search(r"^nouveau ", machine.read("/proc/modules") or "", re.MULTILINE):
        yield warning(
            "nouveau",
            "an NVIDIA card is run by nouveau, with which CUDA does not work: ranks use the CPU",
            "echo 'blacklist nouveau' | sudo tee /etc/modprobe.d/nouveau.conf",
            INSTALL,
            "sudo reboot",
        )
    else:
        yield note(
            "NVIDIA",
            "there is an NVIDIA card without its driver: ranks use the CPU",
            INSTALL,
        )


def _devices(machine: Machine, subject: Subject) -> Iterator[Finding]:
    if not machine.has("/dev/nvidia0"):
        seen = "the NVIDIA driver is loaded, and there is no /dev/nvidia0"
        yield error("/dev/nvidia0", seen, "sudo nvidia-modprobe -c=0")
        return
    if not machine.has("/dev/nvidia-uvm"):
        yield error(
            "/dev/nvidia-uvm",
            "the NVIDIA driver is loaded, and there is no /dev/nvidia-uvm: CUDA can't start",
            "sudo nvidia-modprobe -u -c=0",
            subject.unit.systemctl("restart"),
        )
    yield from _open(machine, subject, "/dev/nvidia0", "video")


def _open(machine: Machine, subject: Subject, device: str, group: str) -> Iterator[Finding]:
    """Whether the service's user may use a device."""
    user = subject.unit.user
    extra = subject.unit["SupplementaryGroups"].split()
    if user in ("", "root"):
        return
    status = machine.status(device)
    if status is None or status.group in extra:
        return
    if machine.run_as(user, "test", "-r", device, "-a", "-w", device).code:
        wanted = status.group if status.group != "root" else group
        yield error(
            device,
            f"the user {user} may not use {device} ({status.user}:{status.group}, "
            f"{status.mode:04o})",
            f"sudo usermod -aG {wanted} {user}",
            subject.unit.systemctl("restart"),
        )


def driver(text: str) -> int:
    """The driver's major version, from /proc/driver/nvidia/version; 0 where it says none."""
    found = re.search(r"(?:Module|x86_64|aarch64)\s+(\d+)\.\d", text)
    return int(found[1]) if found else 0


def _torch(machine: Machine, subject: Subject, version: int) -> Iterator[Finding]:
    python = subject.unit.python
    if not python.startswith("/") or not version:
        return
    done = machine.run_as(subject.unit.user, python, "-I", "-c", _ASK_TORCH, seconds=60)
    found = re.search(r"^cuda (\S+) (\w+)$", done.out, re.MULTILINE)
    if found is None:
        return  # LF104 says that torch is broken
    if found[1] == "None":
        seen = "there is an NVIDIA driver, and the torch that is installed is for the CPU only"
        yield note("torch", seen, "sudo ./install.sh --torch cuda  # in a checkout of LlamaForge")
    elif version < (needed := needed_driver(found[1])):
        seen = f"the NVIDIA driver {version} is older than torch's CUDA {found[1]} needs ({needed})"
        yield error("driver", seen, INSTALL, "sudo reboot")
    elif found[2] == "False":
        seen = f"driver {version} and CUDA {found[1]} fit, and torch finds no card all the same"
        yield error("torch", seen, "nvidia-smi", "sudo dmesg | grep -iE 'nvrm|xid' | tail")


def needed_driver(cuda: str) -> int:
    """The oldest driver for a version of CUDA, such as "12.8"; 0 where that isn't known."""
    major = int(cuda.partition(".")[0])
    return next((oldest for known, oldest in NEEDS if major >= known), 0)


CHECK = Check(
    code="LF404",
    title="GPU",
    sees="a card without driver, nouveau, a missing nvidia-uvm, a device closed to the service's "
    "user, torch for the CPU only, or a driver older than torch's CUDA",
    fix="installs the driver, makes the device, or adds the user to its group",
    look=look,
    seconds=90.0,
)
