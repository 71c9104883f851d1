"""What a worker says about its node. Versions are read from metadata: nothing heavy is imported."""

from __future__ import annotations

import os
import platform
import secrets
from importlib import metadata
from pathlib import Path

from llamaforge import __version__


def identity(state_dir: Path) -> str:
    """This worker's identity: random, made once for each state folder."""
    path = state_dir / "identity"
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


def versions() -> dict[str, str]:
    """Versions of what decides whether nodes can work together."""
    return {
        "llamaforge": __version__,
        "python": platform.python_version(),
        "torch": _installed("torch"),
    }


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
