"""Two machines that let nobody in, opened by the lines that doctor prints and by nothing else: a
job trains over both, Gloo's random ports included, and a third machine reaches none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import lab_torchrun as torchrun
import pytest
from lab_patient import PROGRAM, Patient
from lab_service import install, until_waiting

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NFTABLES = (
    "nft add table inet filter; "
    "nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }'; "
    "nft add rule inet filter input ct state established,related accept; "
    "nft add rule inet filter input iifname lo accept"
)
UFW = "ufw default deny incoming && ufw --force enable"


@pytest.fixture(scope="module")
def machines(lab: Lab) -> dict[str, Node]:
    """Where torchrun is typed, a worker, and somebody else's machine on the same network."""
    names = {"master": "installed", "worker": "installed", "outsider": "bare"}
    nodes = {name: lab.add(name, image=image) for name, image in names.items()}
    lab.boot()
    install(nodes["worker"], "--master-addr", nodes["master"].address)
    return nodes


@pytest.fixture(params=["nftables", "ufw"])
def closed(request: pytest.FixtureRequest, machines: dict[str, Node]) -> Iterator[str]:
    """Default-deny on both machines; open again after the test."""
    both = (machines["master"], machines["worker"])
    if request.param == "ufw" and both[0].run("which", "ufw", check=False).returncode:
        pytest.skip("ufw is not installed on this box: apt-get install ufw")
    shuts, opens = {
        "nftables": (NFTABLES, "nft flush ruleset"),
        "ufw": (UFW, "ufw --force disable && ufw --force reset"),
    }[request.param]
    for node in both:
        node.shell(shuts)
    yield request.param
    for node in both:
        node.shell(opens)


def lines_of_doctor(node: Node, *options: str) -> list[str]:
    """The lines that doctor prints about the firewall."""
    words = (PROGRAM, "doctor", "--json", "--only", "LF301", *options)
    said = json.loads(node.run(*words, check=False, timeout=120).stdout)
    found = [f for f in said["findings"] if f["code"] == "LF301" and f["severity"] != "ok"]
    return [line for finding in found for line in finding["fix"]]


def listeners(node: Node) -> set[int]:
    """TCP ports on which something listens for others."""
    lines = node.run("ss", "-tlnH").stdout.splitlines()
    places = [line.split()[3].rpartition(":") for line in lines]
    return {int(port) for host, _, port in places if not host.startswith(("127.", "[::1]"))}


def test_a_job_trains_through_what_doctors_lines_opened(
    machines: dict[str, Node], closed: str
) -> None:
    master, worker = machines["master"], machines["worker"]
    people = {name: Patient(node) for name, node in machines.items()}
    probe = master.spawn("python3", "-m", "http.server", "29500")
    master.wait_for(lambda: 29500 in listeners(master), seconds=10, what="something listens there")
    assert not people["worker"].reaches(master.address, 29500)
    probe.kill()
    probe.wait(10)

    # The worker's settings name its master; on the master a person names the worker.
    for node, options in ((worker, ()), (master, ("--peer", worker.address))):
        opened = lines_of_doctor(node, *options)
        assert opened, f"doctor says nothing on {node.name}"
        for line in opened:
            node.shell(line)
        assert lines_of_doctor(node, *options) == []

    folder = f"/root/{closed}"
    child = torchrun.begin(
        master, "--max-steps 100000", "--epochs 4000", f"--output-dir {folder}", nproc=2
    )
    master.wait_for(lambda: torchrun.steps(master, folder) >= 3, seconds=120, what="it trains")
    seen = {"master": listeners(master), "worker": listeners(worker)}
    assert 29500 in seen["master"]
    assert [port for port in seen["worker"] if port > 32768], "Gloo listens on a random port"
    for name, ports in seen.items():
        for port in sorted(ports):
            assert not people["outsider"].reaches(machines[name].address, port), f"{name}:{port}"
    for port in sorted(seen["worker"] - {22}):
        assert people["master"].reaches(worker.address, port), port
    step = torchrun.steps(master, folder)
    master.wait_for(
        lambda: torchrun.steps(master, folder) > step, seconds=60, what="it still trains"
    )
    child.send_signal(2)
    child.communicate(timeout=90)
    until_waiting(worker, seconds=60)
