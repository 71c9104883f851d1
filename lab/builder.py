"""Running ./install.sh inside an overlay, with the box's own network and pip settings.

A build is the one thing in a lab that may use the network: a node never does.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.cgroups import Cgroups
from lab.commands import CLEAN, call, joining
from lab.disk import Base
from lab.errors import LabError
from lab.ledger import Ledger

_PASSED = ("http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "requests_ca_bundle")
_SOURCE = "/srv/llamaforge"


class Builder:
    """Builds layers for one lab, in a folder of its own that the ledger knows."""

    def __init__(self, name: str, folder: Path, base: Base, ledger: Ledger) -> None:
        self.name = f"{name}-b"
        self.folder = folder
        self._base = base
        self._ledger = ledger
        self._groups = Cgroups(self.name)

    def install(self, source: Path, below: Sequence[Path], say: Callable[[str], None]) -> Path:
        """Run the install.sh of a source tree above some layers; the layer that it made.

        Raises LabError with its last words when it fails.
        """
        upper, work, root = (self.folder / name for name in ("upper", "work", "root"))
        for path in (upper, work, root):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        self._ledger.note("mount", root)
        for group in self._groups.folders:
            self._ledger.note("cgroup", group)
        lower = ":".join(str(layer) for layer in [*below, self._base.root])
        places = f"lowerdir={lower},upperdir={upper},workdir={work}"
        call("mount", "-t", "overlay", "-o", places, "lab", root)
        try:
            self._groups.make()
            self._run(self._command(root, source), say)
        finally:
            self._groups.kill()
            call("umount", root)
        _prune(upper)
        return upper

    def _command(self, root: Path, source: Path) -> list[str]:
        settings = pip_settings()
        shared = sorted(path for path in _local_places(settings) if not (root / path[1:]).exists())
        passed = {key: value for key, value in os.environ.items() if key.lower() in _PASSED}
        given = {**CLEAN, **passed, **settings, "PIP_NO_CACHE_DIR": "1", "HOME": "/root"}
        # Without /run/systemd a half-booted tree is not mistaken for a running machine.
        return [
            *("systemd-nspawn", "--quiet", "--settings=no", "-D", str(root), "--register=no"),
            *("--keep-unit", "-M", self.name, "--link-journal=no", "--timezone=off"),
            *("--resolv-conf=bind-host", "--console=pipe", f"--bind-ro={source}:{_SOURCE}"),
            *(f"--bind-ro={path}" for path in shared),
            *(f"--setenv={key}={value}" for key, value in given.items()),
            *("bash", f"{_SOURCE}/install.sh", "--torch", "cpu", "--no-service"),
        ]

    def _run(self, command: list[str], say: Callable[[str], None]) -> None:
        lines: list[str] = []
        with subprocess.Popen(
            [*joining(self._groups.folders), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=CLEAN,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                # pip's warnings are about the box's own indexes; a failure shows them, too.
                if not line.startswith(("WARNING:", "Attempted to remove disk")):
                    say(f"  {line.rstrip()}")
        if process.returncode != 0:
            raise LabError("./install.sh failed in the lab:\n" + "\n".join(lines[-30:]))


def _prune(upper: Path) -> None:
    """Leave what was installed: below /opt/llamaforge and in /usr."""
    for path in upper.iterdir():
        if path.name not in ("opt", "usr"):
            shutil.rmtree(path)
    for path in (upper / "opt").iterdir():
        if path.name != "llamaforge":
            shutil.rmtree(path)


def pip_settings() -> dict[str, str]:
    """What pip is told on this box, by files or by environment, as environment variables."""
    asked = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    settings = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2].upper().replace("-", "_")
        settings[f"PIP_{key}"] = str(ast.literal_eval(value))
    environment = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    return {**settings, **environment}


def _local_places(settings: dict[str, str]) -> set[str]:
    """Folders of this box that pip's settings name; as /a/b, since an index has files beside it."""
    words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
    paths = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
    return {str(Path(*path.parts[:3])) for path in paths}
