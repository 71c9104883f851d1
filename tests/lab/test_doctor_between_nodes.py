"""Doctor between real machines: each fault of the network is caused, named, and mended."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from lab_fleet import Fleet
from lab_patient import Patient

from lab import Lab, Node

UNIT = "llamaforge-worker"
CONF = "/etc/llamaforge/worker.conf"
RANDOM = 40123
"""A port of those that the kernel gives to who asks for any."""
SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def date_time_string(self, timestamp=None):
        return super().date_time_string(time.time() - 3600)
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"connected": false}')
http.server.HTTPServer(("", 29511), Handler).serve_forever()
"""
"""A worker whose clock is an hour late: nodes of a lab share one clock."""


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> dict[str, Node]:
    """Two workers and a coordinator on the second's host, and a machine of somebody else."""
    nodes = {name: lab.add(name, image="installed") for name in ("node1", "node2")}
    nodes["outsider"] = lab.add("outsider")
    for node in nodes.values():
        node.start()
    for node in nodes.values():
        node.wait_booted()
    boss = nodes["node2"]
    fleet = Fleet(boss)
    allowed = ",".join(nodes[name].address for name in ("node1", "node2"))
    for name in ("node1", "node2"):
        words = ("--coordinator", fleet.address, "--allow", allowed, "--token-file", "-")
        nodes[name].run("llamaforge", "worker", "install", *words, input=fleet.token())
    return nodes


@pytest.fixture(scope="module")
def patient(nodes: dict[str, Node]) -> Patient:
    node1, node2 = nodes["node1"], nodes["node2"]
    patient = Patient(node1, node2.address)
    node1.wait_for(
        lambda: patient.ask("LF203", "LF302", "LF308") == [], seconds=30, what="the fleet is up"
    )
    return patient


@pytest.fixture(autouse=True)
def same_settings(patient: Patient) -> Iterator[None]:
    before = patient.node.read(CONF)
    yield
    patient.node.write(CONF, before)


NETWORK = [f"LF30{n}" for n in range(1, 10)]


def test_a_fleet_that_is_well(patient: Patient) -> None:
    assert [f for f in patient.ask(*NETWORK) if f["severity"] != "note"] == []


# ── the firewall ──────────────────────────────────────────────────────────────────────────────

NFT = (
    "nft add table inet filter; "
    "nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }'; "
    "nft add rule inet filter input ct state established,related accept; "
    "nft add rule inet filter input iifname lo accept"
)
UFW = "ufw --force enable"


@pytest.mark.parametrize(
    ("closes", "opens_again"),
    [(NFT, "nft flush ruleset"), (UFW, "ufw --force disable && ufw --force reset")],
    ids=["nftables", "ufw"],
)
def test_only_doctors_lines_open_a_firewall_that_drops(
    patient: Patient, nodes: dict[str, Node], closes: str, opens_again: str
) -> None:
    node, mate = patient.node, Patient(nodes["node2"])
    other = Patient(nodes["outsider"])
    if "ufw" in closes and node.run("which", "ufw", check=False).returncode:
        pytest.skip("ufw is not installed on this box: apt-get install ufw")
    server = node.spawn("python3", "-m", "http.server", str(RANDOM))
    node.wait_for(lambda: mate.reaches(node.address, RANDOM), seconds=10, what="all is open")
    node.shell(closes)
    try:
        assert not mate.reaches(node.address, 29500)
        assert not mate.reaches(node.address, RANDOM)
        found = patient.ask("LF301")
        assert [f["severity"] for f in found] == ["error"]
        patient.mend(found)
        assert patient.ask("LF301") == []
        assert mate.reaches(node.address, 29500)
        assert mate.reaches(node.address, RANDOM)
        assert not other.reaches(node.address, 29500)
        assert not other.reaches(node.address, RANDOM)
        assert not mate.reaches(node.address, 22)
    finally:
        node.shell(opens_again)
        server.kill()


# ── not reached ───────────────────────────────────────────────────────────────────────────────


def coordinator(patient: Patient, place: str) -> None:
    patient.node.shell(
        f"sed -i 's|^LLAMAFORGE_COORDINATOR=.*|LLAMAFORGE_COORDINATOR={place}|' {CONF}"
    )


def test_each_way_of_not_reaching_the_coordinator(
    lab: Lab, patient: Patient, nodes: dict[str, Node]
) -> None:
    outsider = nodes["outsider"]
    nobody = re.sub(r"\d+$", "250", outsider.address)
    outsider.shell(NFT)
    for place, seen in (
        (f"{nodes['node2'].address}:29401", "refuses"),
        (f"{outsider.address}:29400", "is silent"),
        (f"{nobody}:29400", "nobody in the network has this address"),
        ("198.51.100.7:29400", "no route"),
        ("no-such-host:29400", "a name that nobody here knows"),
    ):
        coordinator(patient, place)
        (found,) = patient.ask("LF302")
        assert found["about"] == place
        assert seen in found["seen"], found
    outsider.shell("nft flush ruleset")


def test_a_name_is_mended_in_etc_hosts(patient: Patient, nodes: dict[str, Node]) -> None:
    coordinator(patient, "boss.lab:29400")
    (found,) = patient.ask("LF302")
    (line,) = found["fix"]
    patient.node.shell(line.replace("ADDRESS", nodes["node2"].address))
    assert patient.ask("LF302") == []


def test_a_peer_whose_cable_is_pulled(patient: Patient, nodes: dict[str, Node]) -> None:
    """Packets that are sent again, while a connection waits."""
    mate = nodes["node2"]
    talk = f"import socket, time; s = socket.create_connection(('{mate.address}', 29400)); "
    talk += "[(s.send(b'x' * 400), time.sleep(0.05)) for _ in range(200)]"
    talker = patient.node.spawn("python3", "-c", talk)
    patient.node.wait_for(
        lambda: "ESTAB" in patient.node.run("ss", "-tn", "dst", mate.address).stdout,
        seconds=10,
        what="they talk",
    )
    mate.unplug()
    try:
        patient.node.wait_for(
            lambda: any(f["severity"] == "warning" for f in patient.ask("LF306")),
            seconds=20,
            what="packets are sent again",
        )
    finally:
        mate.replug()
        talker.kill()


# ── names and addresses ───────────────────────────────────────────────────────────────────────


def test_names_that_are_looked_up_slowly(patient: Patient, nodes: dict[str, Node]) -> None:
    node, mate = patient.node, nodes["node2"].address
    hosts, resolver = node.read("/etc/hosts"), node.read("/etc/resolv.conf")
    node.shell(f"sed -i '/^{mate}/d' /etc/hosts")
    node.write("/etc/resolv.conf", f"nameserver {re.sub(r'[0-9]+$', '251', mate)}\n")
    (found,) = patient.ask("LF304")[:1]
    assert (found["about"], found["severity"]) == (mate, "warning")
    patient.mend([found])
    assert patient.ask("LF304") == []
    node.write("/etc/hosts", hosts)
    node.write("/etc/resolv.conf", resolver)


def test_wrong_names_addresses_and_interfaces(patient: Patient) -> None:
    node = patient.node
    hosts = node.read("/etc/hosts")
    node.shell("sed -i '/node1/d' /etc/hosts; echo '127.0.1.1 node1' >> /etc/hosts")
    patient.setting("LLAMAFORGE_ADDRESS=10.99.99.99", "export GLOO_SOCKET_IFNAME=eth77")
    found = patient.ask("LF303")
    assert {f["about"] for f in found} == {"node1", "10.99.99.99", "eth77"}
    patient.mend(found)
    assert patient.ask("LF303") == []
    assert f"LLAMAFORGE_ADDRESS={node.address}\n" in node.read(CONF)
    node.write("/etc/hosts", hosts)


def test_an_address_on_loan(patient: Patient) -> None:
    node = patient.node
    change = f"ip address change {node.address}/24 dev host0"
    node.shell(f"{change} valid_lft 3600 preferred_lft 3600")
    (found,) = patient.ask("LF305")
    assert (found["about"], found["severity"]) == (node.address, "note")
    patient.mend([found])
    assert patient.ask("LF305") == []


# ── the way, versions, clocks ─────────────────────────────────────────────────────────────────


def test_packets_that_are_too_large_for_the_way(patient: Patient, nodes: dict[str, Node]) -> None:
    """The far end of the cable takes less than both machines believe."""
    link = nodes["node2"].machine.link
    subprocess.run(["ip", "link", "set", "dev", link, "mtu", "1300"], check=True)
    try:
        found = patient.ask("LF307")
        assert {f["about"] for f in found} == {nodes["node2"].address}
        assert "1280 bytes do" in found[0]["seen"]
        patient.mend(found)
        assert patient.ask("LF307") == []
    finally:
        subprocess.run(["ip", "link", "set", "dev", link, "mtu", "1500"], check=True)
        patient.node.shell("ip link set dev host0 mtu 1500")


def test_versions_that_differ(patient: Patient, nodes: dict[str, Node]) -> None:
    mate = nodes["node2"]
    file = "$(find -L /opt/llamaforge/current/lib -path '*/llamaforge/__init__.py' | head -1)"
    mate.shell(f"sed -i 's/^__version__ = .*/__version__ = \"0.9.9\"/' {file}")
    mate.shell(f"systemctl restart {UNIT}")
    patient.node.wait_for(lambda: bool(patient.ask("LF308")), seconds=20, what="it is noticed")
    (found,) = patient.ask("LF308")
    assert found["about"] == f"{mate.address} llamaforge"
    assert f"and 0.9.9 on {mate.address}" in found["seen"]


def test_a_worker_that_does_not_let_this_one_in(patient: Patient, nodes: dict[str, Node]) -> None:
    mate = nodes["node2"]
    mate.shell(f"sed -i '/^LLAMAFORGE_ALLOW=/d' {CONF}; systemctl restart {UNIT}")
    patient.node.wait_for(
        lambda: any("not let this machine in" in f["seen"] for f in patient.ask("LF308")),
        seconds=20,
        what="it is turned away",
    )


def test_a_clock_that_is_an_hour_off(patient: Patient, nodes: dict[str, Node]) -> None:
    mate = nodes["node2"]
    server = mate.spawn("python3", "-c", SERVER)
    patient.node.wait_for(
        lambda: patient.reaches(mate.address, 29511), seconds=10, what="the late clock answers"
    )
    found = [f for f in patient.ask("LF309", peer=f"{mate.address}:29511") if f["about"] != "clock"]
    assert [(f["about"], f["severity"]) for f in found] == [(mate.address, "error")]
    assert "3600 s ahead of" in found[0]["seen"] or "3599 s ahead of" in found[0]["seen"]
    server.kill()
