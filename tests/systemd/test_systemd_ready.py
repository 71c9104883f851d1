"""A torchrun under Type=notify: the `.pth` of the wheel speaks for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llamaforge.systemd.ready import announce, is_torchrun

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ["python3", "-m", "torch.distributed.run", "a.py"]
HOOK = ROOT / "packaging" / "python" / "llamaforge_ready.pth"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("notify")
        end.settimeout(0.2)
        yield end


def heard(manager: socket.socket) -> list[str]:
    said = []
    try:
        while True:
            said.append(manager.recv(4096).decode())
    except TimeoutError:
        return said


def test_the_main_process_is_reported_ready_and_unwatched(manager):
    environ = {"NOTIFY_SOCKET": "notify", "SYSTEMD_EXEC_PID": str(os.getpid())}
    assert announce(environ, TORCHRUN)
    said = heard(manager)
    assert said[0] == "WATCHDOG_USEC=0"
    assert said[-1] == "READY=1"
    assert "NOTIFY_SOCKET" not in environ


def test_a_child_of_the_service_says_nothing(manager):
    assert not announce({"NOTIFY_SOCKET": "notify", "SYSTEMD_EXEC_PID": "1"}, TORCHRUN)
    assert heard(manager) == []


def started(tmp_path: Path, *arguments: str) -> None:
    """Runs Python with the hook in a site-packages folder, as under `Type=notify`."""
    site = tmp_path / "site"
    site.mkdir()
    (site / HOOK.name).write_text(HOOK.read_text(encoding="utf-8"), encoding="utf-8")
    (site / "sitecustomize.py").write_text(f"import site; site.addsitedir({str(site)!r})")
    paths = f"{site}:{ROOT / 'src'}"
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": paths}
    command = [sys.executable, *arguments]
    subprocess.run(command, env=environ, check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_the_hook_speaks_for_torchrun(manager, tmp_path):
    started(tmp_path, "-u", "-m", "torch.distributed.run", "--help")
    assert heard(manager)[-1] == "READY=1"


def test_the_hook_leaves_other_programs_alone(manager, tmp_path):
    started(tmp_path, "-c", "pass")
    assert heard(manager) == []


@pytest.mark.parametrize(
    "words", ["--launcher torchrun", "-m torch.distributed.run", "/x/torchrun"]
)
def test_a_program_that_only_names_torchrun_speaks_for_itself(manager, tmp_path, words):
    script = tmp_path / "notifies.py"
    script.write_text("import os\nassert 'NOTIFY_SOCKET' in os.environ\n")
    started(tmp_path, str(script), *words.split())
    assert heard(manager) == []


@pytest.mark.parametrize(
    ("command", "is_it"),
    [
        ("python3 -m torch.distributed.run --nnodes=2 a.py", True),
        ("python3 -u -X dev -W ignore -m torch.distributed.run a.py", True),
        ("python3 -umtorch.distributed.run a.py", True),
        ("python3 --check-hash-based-pycs never -Im torch.distributed.run", True),
        ("/v/bin/python3 /v/bin/torchrun a.py", True),
        ("python3 a.py -m torch.distributed.run", False),
        ("python3 -m mine torchrun", False),
        ("python3 -c pass torchrun", False),
        ("python3 -X torchrun a.py", False),
        ("python3 - torchrun", False),
        ("python3 -m", False),
        ("python3", False),
    ],
)
def test_torchrun_is_told_from_its_name_among_arguments(command, is_it):
    assert is_torchrun(command.split()) is is_it


def test_the_hook_is_one_line_that_python_runs():
    lines = HOOK.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("import ")
