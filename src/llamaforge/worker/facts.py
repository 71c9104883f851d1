"""What a worker says about its node.

Nothing heavy is imported: the version of torch is the one in the name of its metadata folder
(`importlib.metadata` says the same and costs an idle worker 0.7 MB).
"""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from llamaforge import __version__


def identity(state_dir: Path) -> str:
    """This worker's identity: random, made once for each state folder."""
    path, earlier = state_dir / "node-id", state_dir / "identity"
    if earlier.is_file() and not path.exists():  # its name, before there were certificates
        earlier.rename(path)
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        state_dir.mkdir(parents=True, exist_ok=True)
        made = secrets.token_hex(16)
        path.write_text(made + "\n")
        return made


def cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def memory() -> int:
    """Bytes of memory in this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpus(proc: Path = Path("/proc")) -> int:
    """NVIDIA GPUs that the kernel's driver knows in this machine."""
    return sum(1 for _ in (proc / "driver" / "nvidia" / "gpus").glob("*/information"))


def versions() -> dict[str, str]:
    """Versions of what decides whether nodes can work together."""
    return {
        "llamaforge": __version__,
        "python": platform.python_version(),
        "torch": installed("torch", sys.path),
    }


def installed(package: str, folders: Sequence[str]) -> str:
    """The version of an installed package, or "" where it isn't in one of the folders."""
    for folder in folders:
        for info in Path(folder).glob(f"{package}-*.dist-info"):
            return info.name.removesuffix(".dist-info").partition("-")[2]
    return ""
