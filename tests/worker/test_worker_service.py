"""`llamaforge worker run` as a service: a real process; the test is its service manager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXEC = """
import os, sys
os.environ["SYSTEMD_EXEC_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "llamaforge", "worker", "run", *sys.argv[1:]])
"""
"""Starts the worker as systemd does: it is the process that was forked for the unit."""


class Unit:
    """A worker and what it tells its service manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "worker.conf"
        self.config.write_text("MASTER_ADDR=127.0.0.1\nMASTER_PORT=1\n")
        self.runtime = folder / "run"
        self.runtime.mkdir()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.heard: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self, **environ: str) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-c", EXEC, "--config", str(self.config), "--peer-port", "0"],
            env={
                **kept,
                "NOTIFY_SOCKET": str(self.folder / "notify"),
                "WATCHDOG_USEC": "3000000",
                "STATE_DIRECTORY": str(self.folder / "state"),
                "CACHE_DIRECTORY": str(self.folder / "cache"),
                "RUNTIME_DIRECTORY": str(self.runtime),
                **environ,
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self, wanted: Callable[[str], bool], seconds: float = 30) -> str:
        """The next message of that kind."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                said = self.socket.recv(4096).decode()
            except TimeoutError:
                break
            self.heard.append(said)
            if wanted(said):
                return said
        raise AssertionError(f"never heard; but {self.heard}")

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        assert self.process is not None
        try:
            _, said = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            alive = self.process.poll() is None
            self.process.send_signal(signal.SIGABRT)  # it says where it stands
            said = self.process.communicate(timeout=30)[1]
            raise AssertionError(f"{alive=}, {self.heard}, {said}") from None
        return self.process.returncode, said


@pytest.fixture
def unit() -> Iterator[Unit]:
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a socket has 107 bytes
        made = Unit(Path(folder))
        yield made
        made.socket.close()
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.communicate()


def status_with(text: str) -> Callable[[str], bool]:
    return lambda said: said.startswith("STATUS=") and text in said


def test_ready_status_watchdog_and_an_orderly_end(unit: Unit) -> None:
    unit.start()
    unit.hear(lambda said: said == "READY=1")
    unit.hear(status_with("waiting for 127.0.0.1:1"))
    unit.hear(lambda said: said == "WATCHDOG=1")
    assert unit.process is not None
    unit.process.send_signal(signal.SIGTERM)
    unit.hear(lambda said: said == "STOPPING=1\nEXTEND_TIMEOUT_USEC=80000000")
    assert unit.end()[0] == 0
    assert not (unit.runtime / "starts.json").exists()


def test_a_reload_takes_new_settings_and_keeps_old_ones_where_they_are_wrong(unit: Unit) -> None:
    unit.start()
    unit.hear(status_with("waiting for 127.0.0.1:1"))
    assert unit.process is not None
    unit.config.write_text("MASTER_ADDR=127.0.0.1\nMASTER_PORT=2\n")
    unit.process.send_signal(signal.SIGHUP)
    unit.hear(lambda said: said.startswith("RELOADING=1\nMONOTONIC_USEC="))
    unit.hear(lambda said: said == "READY=1")
    unit.hear(status_with("waiting for 127.0.0.1:2"))
    unit.config.write_text("MASTER_PORT=none\n")
    unit.process.send_signal(signal.SIGHUP)
    unit.hear(lambda said: said == "READY=1")
    unit.process.send_signal(signal.SIGTERM)
    code, said = unit.end()
    assert code == 0
    assert "the settings stay as they were: MASTER_PORT in" in said
    assert "changed: MASTER_PORT" in said


def test_wrong_settings_end_with_the_code_that_is_not_restarted(unit: Unit) -> None:
    unit.config.write_text("MASTER_ADRR=x\n")
    unit.start()
    code, said = unit.end()
    assert code == 78
    assert "did you mean MASTER_ADDR?" in said
    assert "Traceback" not in said


def test_what_is_missing_is_said_and_waited_for(unit: Unit) -> None:
    missing = unit.folder / "mount" / "hf"
    missing.parent.write_text("in the way")
    unit.start(HF_HOME=str(missing))
    unit.hear(lambda said: said == "READY=1")
    unit.hear(status_with(f"not ready: HF_HOME={missing}"))
    missing.parent.unlink()
    unit.hear(status_with("waiting for 127.0.0.1:1"))


def test_an_update_restarts_an_idle_worker_once(unit: Unit) -> None:
    unit.start()
    unit.hear(status_with("waiting for"))
    (unit.runtime / "restart-when-idle").touch()
    unit.hear(status_with("leaving: an update asks for a restart"))
    assert unit.end()[0] == 0
    assert not (unit.runtime / "restart-when-idle").exists()


def test_a_worker_that_keeps_crashing_says_so_and_goes_on(unit: Unit) -> None:
    for _ in range(4):
        unit.start()
        unit.hear(lambda said: said == "READY=1")
        assert unit.process is not None
        unit.process.kill()
        unit.end()
    unit.start()
    unit.hear(status_with("not ready: ended without order 4 times"))
    unit.hear(status_with("waiting for 127.0.0.1:1"))
