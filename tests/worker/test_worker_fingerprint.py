"""What a node says of itself, from files as the kernel and the driver write them."""

from __future__ import annotations

import platform
from pathlib import Path

from llamaforge.worker.fingerprint import boot, fingerprint, microcode

CPU = """processor	: 0
model name	: Intel(R) Xeon(R) Processor
microcode	: 0x2b000571
flags		: fpu avx2 fma avx512f amx_bf16 amx_tile nonsense
processor	: 1
flags		: fpu
"""
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"


def machine(tmp_path: Path, *, gpus: int = 0) -> Path:
    (tmp_path / "cpuinfo").write_text(CPU)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("12-34\n")
    for number in range(gpus):
        folder = tmp_path / f"driver/nvidia/gpus/0000:{number}"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
        (tmp_path / "driver/nvidia/version").write_text(DRIVER)
    return tmp_path


def test_a_machine_without_gpus(tmp_path: Path) -> None:
    found = fingerprint(machine(tmp_path))
    assert found["cpu"] == "Intel(R) Xeon(R) Processor"
    assert found["instructions"] == "avx2 fma avx512f amx_tile amx_bf16"
    assert found["python"] == platform.python_version()
    assert {"torch", "transformers", "peft", "safetensors"} <= set(found)
    assert not {"gpus", "driver"} & set(found)
    assert (microcode(tmp_path), boot(tmp_path)) == ("0x2b000571", "12-34")


def test_a_machine_with_gpus(tmp_path: Path) -> None:
    found = fingerprint(machine(tmp_path, gpus=2))
    assert (found["gpus"], found["driver"]) == ("NVIDIA H200, NVIDIA H200", "550.54.15")


def test_this_machine() -> None:
    assert all(fingerprint().values())
    assert boot()
