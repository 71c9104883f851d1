"""People's scripts on installed workers: what torchrun would do, and what confinement forbids."""

from __future__ import annotations

import json

import pytest
from lab_fleet import JOBS, Fleet
from lab_service import UNIT, main_pid, status

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MEET = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(total)
step = torch.compile(lambda x: (x * 2).sin())
print("the sum is", int(total.item()), "on", os.environ["GROUP_RANK"], float(step(total)) < 2)
open("beside", "w").write("x")
open(os.environ["LLAMAFORGE_OUTPUT"] + "/result", "w").write("of rank " + os.environ["RANK"])
dist.destroy_process_group()
"""
HOSTILE = r"""
import ctypes, glob, json, os, signal, socket, sys
worker, said = int(sys.argv[1]), {}
def attempt(name, act):
    try:
        act()
        said[name] = "done"
    except OSError as why:
        said[name] = type(why).__name__
def traced():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, worker, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
def connected(path):
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        caller.sendall(b"GET /v1/tokens HTTP/1.1\r\nHost: x\r\n\r\n")
        if b" 403 " in caller.recv(4096).partition(b"\r\n")[0]:
            raise PermissionError
blob = glob.glob("/var/cache/llamaforge/blobs/blobs/*/*")[0]
def damage():
    os.chmod(blob, 0o644)
    open(blob, "wb")
for path in (
    "/var/lib/llamaforge/identity/identity.pem", "/run/credentials/llamaforge-worker.service/token",
    "/etc/llamaforge/token", "/etc/llamaforge/environment", f"/proc/{worker}/environ",
    f"/proc/{worker}/mem", "/var/lib/llamaforge-coordinator/authority/identity.pem",
    "/var/lib/llamaforge-coordinator/ledger.db",
):
    attempt("read " + path.replace(str(worker), "WORKER"), lambda: open(path, "rb").read(1))
attempt("add a file to the state", lambda: open("/var/lib/llamaforge/planted", "w"))
attempt("unlink the key", lambda: os.unlink("/var/lib/llamaforge/identity/identity.pem"))
attempt("damage a blob", damage)
attempt("unlink a blob", lambda: os.unlink(blob))
attempt("plant a wish", lambda: open("/run/llamaforge/restart-when-idle", "w"))
attempt("trace the worker", traced)
attempt("stop the worker", lambda: os.kill(worker, signal.SIGSTOP))
control = "/run/llamaforge-coordinator/control.sock"
attempt("speak to the coordinator", lambda: connected(control))
print("said " + json.dumps(said))
"""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Fleet:
    """A coordinator and a worker on one machine, and a worker on another."""
    nodes = [lab.add(name, image="installed") for name in ("head", "other")]
    for node in nodes:
        node.boot()
    made = Fleet(nodes[0])
    for node in nodes:
        made.join(node)
    return made


def run(head: Node, *words: str, check: bool = True) -> str:
    """`llamaforge run` in the folder with the scripts."""
    command = " ".join(("cd", JOBS + "/code", "&&", "llamaforge", "run", *words))
    done = head.shell(f"{command} 2>&1", check=check, timeout=180)
    return done.stdout


def test_a_script_meets_on_two_machines_and_brings_its_results(fleet: Fleet) -> None:
    fleet.head.write(f"{JOBS}/code/meet.py", MEET)
    said = run(fleet.head, "--nodes", "2", "--name", "meeting", "--", "meet.py")
    assert "the sum is 3 on 0 True" in said
    assert "the sum is 3 on 1 True" in said
    assert fleet.head.read(f"{JOBS}/code/runs/meeting/result") == "of rank 0"


@pytest.mark.parametrize("where", [0, 1])
def test_a_hostile_script_gets_nothing(fleet: Fleet, where: int) -> None:
    node = fleet.workers[where]
    fleet.head.write(f"{JOBS}/code/hostile.py", HOSTILE)
    other = fleet.workers[1 - where].name
    fleet.head.run("llamaforge", "nodes", "cordon", other)
    try:
        name = f"hostile-{node.name}"
        text = run(fleet.head, "--name", name, "--", "hostile.py", str(main_pid(node)))
    finally:
        fleet.head.run("llamaforge", "nodes", "allow", other)
    said = json.loads(text.partition("said ")[2].splitlines()[0])
    assert len(said) == 16
    assert {name for name, how in said.items() if how == "done"} == set()
    node.wait_for(lambda: status(node).startswith("waiting"), what="the worker waits again")
    assert "unconfined" not in node.run("journalctl", "-u", UNIT, "--no-pager").stdout


def test_a_unit_that_forbids_confinement_is_said_and_mended(fleet: Fleet) -> None:
    node = fleet.workers[1]
    folder = f"/etc/systemd/system/{UNIT}.service.d"
    text = "[Service]\nSystemCallFilter=~landlock_create_ruleset\n"
    node.write(f"{folder}/70-test.conf", text)
    node.shell(f"systemctl daemon-reload && systemctl restart {UNIT}")
    node.wait_for(lambda: "unconfined" in status(node), what="the worker says so")
    found = node.run("llamaforge", "doctor", "--only", "LF407", "--json", check=False).stdout
    assert "landlock_create_ruleset" in found
    node.shell(f"rm {folder}/70-test.conf && systemctl daemon-reload && systemctl restart {UNIT}")
    node.wait_for(
        lambda: status(node).startswith("waiting") and "unconfined" not in status(node),
        what="the worker waits",
    )
    assert node.run("llamaforge", "doctor", "--only", "LF407", check=False).returncode == 0
