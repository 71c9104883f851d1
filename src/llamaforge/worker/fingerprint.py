"""What a node is made of, as far as it may change a result or keep nodes from working together.

Nothing heavy is imported and no program is run: versions are those of the metadata folders, the
processor's and the driver's words come from /proc.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

from llamaforge import __version__
from llamaforge.worker.facts import installed

LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")
INSTRUCTIONS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2", "svebf16"),
)
"""Sets of instructions by which libraries choose their kernels, as /proc/cpuinfo names them."""


def fingerprint(proc: Path = Path("/proc")) -> dict[str, str]:
    """By name; what there isn't is left out."""
    cpu = (proc / "cpuinfo").read_text(errors="replace")
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", cpu, re.M)[:1]).split())
    model = re.search(r"^model name\s*:\s*(.*)$", cpu, re.M)
    found = {
        "llamaforge": __version__,
        "python": platform.python_version(),
        **{library: installed(library, sys.path) for library in LIBRARIES},
        "cpu": model[1] if model else platform.machine(),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "gpus": _gpus(proc / "driver" / "nvidia" / "gpus"),
        "driver": _driver(proc / "driver" / "nvidia" / "version"),
    }
    return {name: value for name, value in found.items() if value}


def boot(proc: Path = Path("/proc")) -> str:
    """Random, made by the kernel at each boot."""
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


def microcode(proc: Path = Path("/proc")) -> str:
    """The processor's microcode; empty where that isn't told."""
    cpu = (proc / "cpuinfo").read_text(errors="replace")
    found = re.search(r"^microcode\s*:\s*(\S+)$", cpu, re.M)
    return found[1] if found else ""


def _gpus(folder: Path) -> str:
    """Names of NVIDIA GPUs, sorted."""
    names = []
    for file in sorted(folder.glob("*/information")):
        found = re.search(r"^Model:\s*(.*)$", _text(file), re.M)
        names.append(found[1].strip() if found else "?")
    return ", ".join(sorted(names))


def _driver(file: Path) -> str:
    """The NVIDIA driver's version."""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", _text(file), re.M)
    return found[1] if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
