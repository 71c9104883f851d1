"""The worker's port on real machines: seen, reachable for the coordinator, closed to strangers."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from lab_service import status

from lab import Lab, Node

PORT = 29500
GET = f"""
import http.client, sys
link = http.client.HTTPConnection(sys.argv[1], {PORT}, timeout=5)
link.request("GET", sys.argv[2])
print(link.getresponse().read().decode(), end="")
"""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> dict[str, Node]:
    """A worker that waits for the classic way's coordinator, that machine, and a third one."""
    nodes = {name: lab.add(name) for name in ("coordinator", "outsider")}
    nodes["worker"] = lab.add("worker", image="installed")
    lab.boot()
    address = nodes["coordinator"].address
    nodes["worker"].run("llamaforge", "worker", "install", "--master-addr", address, timeout=120)
    nodes["worker"].wait_for(
        lambda: f"waiting for {address}:{PORT}" in status(nodes["worker"]), 60, "the worker waits"
    )
    return nodes


def get(from_: Node, to: Node, path: str) -> str:
    """A page, fetched from another machine. Raises LabError."""
    return from_.run("/usr/bin/python3", "-c", GET, to.address, path).stdout


def test_it_is_seen_by_ss(fleet: dict[str, Node]) -> None:
    listed = fleet["worker"].run("ss", "-tlnp").stdout
    (line,) = [line for line in listed.splitlines() if f":{PORT} " in line]
    assert line.split()[3] in (f"*:{PORT}", f"0.0.0.0:{PORT}")
    assert "llamaforge" in line


@pytest.mark.skipif(shutil.which("nc") is None, reason="netcat-openbsd is not installed")
def test_the_coordinator_reaches_it(fleet: dict[str, Node]) -> None:
    worker = fleet["worker"]
    done = fleet["coordinator"].run("nc", "-zv", worker.address, str(PORT))
    assert "succeeded" in done.stderr


def test_health_tells_the_coordinator_what_runs(fleet: dict[str, Node]) -> None:
    said = json.loads(get(fleet["coordinator"], fleet["worker"], "/health"))
    assert said["status"] == status(fleet["worker"]).strip()
    assert (said["ready"], said["job"]) == (True, "")
    assert {"llamaforge", "python", "torch"} <= set(said["versions"])
    assert all(said["versions"].values())


def test_a_stranger_is_reset_counted_and_named_in_the_journal(fleet: dict[str, Node]) -> None:
    worker, outsider = fleet["worker"], fleet["outsider"]
    for _ in range(3):
        done = outsider.run("/usr/bin/python3", "-c", GET, worker.address, "/health", check=False)
        assert "ConnectionResetError" in done.stderr
        assert done.stdout == ""
    lines = [str(entry["MESSAGE"]) for entry in worker.journal("llamaforge-worker")]
    named = [line for line in lines if f"refused a connection from {outsider.address}" in line]
    assert len(named) == 1
    metrics = get(fleet["coordinator"], worker, "/metrics")
    assert "llamaforge_worker_refused_total 3\n" in metrics


def test_the_machine_itself_may_connect_by_every_address(fleet: dict[str, Node]) -> None:
    worker = fleet["worker"]
    for address in ("127.0.0.1", worker.address, "::1"):
        asked = ("/usr/bin/python3", "-c", GET, address, "/metrics")
        assert "llamaforge_worker_ranks" in worker.run(*asked).stdout


def test_a_reload_lets_in_whom_the_settings_name(fleet: dict[str, Node]) -> None:
    worker, outsider = fleet["worker"], fleet["outsider"]
    worker.shell(f"echo LLAMAFORGE_ALLOW={outsider.address} >>/etc/llamaforge/worker.conf")
    worker.run("systemctl", "reload", "llamaforge-worker")
    worker.wait_for(lambda: get(outsider, worker, "/metrics"), 10, "the stranger is let in")
    assert json.loads(get(fleet["coordinator"], worker, "/health"))["ready"]


def test_who_holds_connections_open_does_not_close_the_port(fleet: dict[str, Node]) -> None:
    """A hundred silent connections from a machine that may: later ones are reset, then freed."""
    worker, coordinator = fleet["worker"], fleet["coordinator"]
    hold = f"""
import socket, sys, time
held = [socket.create_connection(({worker.address!r}, {PORT})) for _ in range(100)]
print("held", flush=True)
time.sleep(60)
"""
    child = coordinator.spawn("/usr/bin/python3", "-c", hold)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    begun = time.monotonic()
    worker.wait_for(lambda: get(coordinator, worker, "/health"), 20, "the port answers again")
    assert time.monotonic() - begun < 15
    child.kill()
