"""LF3xx: the network, each fault on a made-up machine."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from doctor_machine import LINK, TIMED_OUT, FakeMachine, fixes
from hypothesis import given
from hypothesis import strategies as st

from doctor.test_doctor_packet_filter import OPENED, UFW, match, ruleset
from llamaforge.doctor.checks import (
    clock,
    coordinator,
    dhcp,
    firewalls,
    interface,
    mtu,
    peers,
    retransmits,
    reverse_dns,
)
from llamaforge.doctor.contact import Contact
from llamaforge.doctor.finding import Severity
from llamaforge.doctor.subject import Subject

SAME = {"python": "3.11.2", "torch": "2.13.0+cpu", "llamaforge": "0.1.0"}
ALL = (firewalls, coordinator, interface, reverse_dns, dhcp, retransmits, mtu, peers, clock)


@pytest.fixture
def fleet(machine: FakeMachine) -> FakeMachine:
    """A node whose coordinator is at 10.0.0.2, without a fault."""
    machine.settings("LLAMAFORGE_COORDINATOR=10.0.0.2:29400")
    machine.peer("10.0.0.2", 29400, {})
    machine.peer("10.0.0.1", 29500, {"connected": True, "versions": SAME})
    machine.says("ss -tinOH", "")
    machine.says("getent hosts 10.0.0.2", "10.0.0.2 boss\n")
    return machine


def links(machine: FakeMachine, *others: dict[str, Any], **info: object) -> None:
    """The interfaces: eth0, changed, and more."""
    link = copy.deepcopy(LINK)
    link["addr_info"][0] |= info  # type: ignore[index]
    machine.says("ip -j addr", json.dumps([link, *others]))


def test_a_network_that_is_well_has_no_findings(fleet: FakeMachine) -> None:
    fleet.peer("10.0.0.3", 29500, {"connected": True, "versions": SAME})
    fleet.says("getent hosts 10.0.0.3", "10.0.0.3 node3\n")
    found = [f for module in ALL for f in fleet.look(module.CHECK, "10.0.0.3")]
    assert found == []


# ── LF301 ─────────────────────────────────────────────────────────────────────────────────────


def test_plain_nftables_is_opened_for_the_fleet_alone(fleet: FakeMachine) -> None:
    fleet.says("nft -j list ruleset", ruleset([]))
    (found,) = fleet.look(firewalls.CHECK, "10.0.0.3:29500")
    assert found.severity is Severity.ERROR
    assert found.fix == (
        "nft 'insert rule inet filter input ip saddr { 10.0.0.2, 10.0.0.3 } "
        "tcp dport { 29500, 32768-60999 } accept'",
    )
    rule = [
        match("ip", "saddr", {"set": ["10.0.0.2", "10.0.0.3"]}),
        match("tcp", "dport", {"set": [29500, {"range": [32768, 60999]}]}),
        {"accept": None},
    ]
    fleet.says("nft -j list ruleset", ruleset(rule))
    assert fleet.look(firewalls.CHECK, "10.0.0.3:29500") == []


def test_only_who_is_stopped_is_named(fleet: FakeMachine) -> None:
    rule = [match("ip", "saddr", "10.0.0.2"), {"accept": None}]
    fleet.says("nft -j list ruleset", ruleset(rule))
    (found,) = fleet.look(firewalls.CHECK, "10.0.0.3:29500")
    assert "10.0.0.3" in found.fix[0]
    assert "10.0.0.2" not in found.fix[0]


def test_the_kernels_own_range_of_ports_is_opened(fleet: FakeMachine) -> None:
    fleet.write("/proc/sys/net/ipv4/ip_local_port_range", "20000\t29999\n")
    fleet.says("nft -j list ruleset", ruleset([]))
    (found,) = fleet.look(firewalls.CHECK)
    assert "tcp dport { 20000-29999 } accept" in found.fix[0]


def test_ufw_is_opened_by_ufw(fleet: FakeMachine) -> None:
    fleet.says("ufw status", "Status: active\n")
    fleet.says("iptables-save", UFW.format(rule=""))
    (found,) = fleet.look(firewalls.CHECK)
    assert found.about == "ufw"
    assert found.fix == ("ufw allow proto tcp from 10.0.0.2 to any port 29500,32768:60999",)
    fleet.says("iptables-save", UFW.format(rule=OPENED))
    assert fleet.look(firewalls.CHECK) == []


def test_plain_iptables_is_opened_by_iptables(fleet: FakeMachine) -> None:
    fleet.says("iptables-save", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    (found,) = fleet.look(firewalls.CHECK)
    assert found.fix == (
        "iptables -I INPUT -p tcp -s 10.0.0.2 -m multiport --dports 29500,32768:60999 -j ACCEPT",
    )


def test_firewalld_is_opened_in_the_zone_of_the_interface(fleet: FakeMachine) -> None:
    text = ruleset([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}], policy="accept")
    fleet.says("nft -j list ruleset", text.replace('"filter"', '"firewalld"', 2))
    fleet.says("nft -j list ruleset", text)
    fleet.says("firewall-cmd --state", "running\n")
    fleet.says("firewall-cmd --get-zone-of-interface=eth0", "internal\n")
    (found,) = fleet.look(firewalls.CHECK)
    assert found.fix[0] == (
        'firewall-cmd --permanent --zone=internal --add-rich-rule=\'rule family="ipv4" '
        'source address="10.0.0.2" port port="29500" protocol="tcp" accept\''
    )
    assert found.fix[-1] == "firewall-cmd --reload"


def test_iptables_tables_are_not_judged_twice(fleet: FakeMachine) -> None:
    """nft shows them too, with conditions that it can't name."""
    text = ruleset([{"xt": {"type": "match", "name": "multiport"}}, {"accept": None}])
    fleet.says("nft -j list ruleset", text.replace('"inet"', '"ip"'))
    fleet.says("iptables-save", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    assert fleet.look(firewalls.CHECK) == []


def test_an_unknown_fleet_is_asked_for(machine: FakeMachine) -> None:
    machine.says("nft -j list ruleset", ruleset([]))
    (found,) = machine.look(firewalls.CHECK)
    assert found.severity is Severity.WARNING
    assert found.fix == ("llamaforge doctor --peer ADDRESS --only LF301",)


def test_rules_that_only_root_can_read(fleet: FakeMachine) -> None:
    fleet.says("nft -j list ruleset", code=1, err="Operation not permitted")
    (found,) = fleet.look(firewalls.CHECK)
    assert found.seen.startswith("could not look: the firewall can only be read by root")


def test_networks_that_are_allowed_belong_to_the_fleet(fleet: FakeMachine) -> None:
    fleet.settings("LLAMAFORGE_ALLOW=10.0.0.0/24, 127.0.0.1, 10.0.0.1, fd00::/64")
    assert Subject(fleet, (), {}).fleet == ["10.0.0.0/24", "fd00::/64"]
    fleet.settings("LLAMAFORGE_COORDINATOR=10.0.0.2", "LLAMAFORGE_ALLOW=10.0.0.0/24,10.0.1.9")
    assert Subject(fleet, (), {}).fleet == ["10.0.0.0/24", "10.0.1.9"]
    assert Subject(fleet, ["10.0.0.3:1"], {}).fleet == ["10.0.0.2", "10.0.0.3"]


# ── LF302 ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("contact", "seen"),
    [
        (Contact.REFUSED, "refuses: that machine is up"),
        (Contact.SILENT, "is silent: it is off, or a firewall"),
        (Contact.NO_ROUTE, "no route to 10.0.0.2:29400"),
        (Contact.NO_HOST, "nobody in the network has this address now"),
    ],
)
def test_each_way_of_not_reaching_the_coordinator(
    fleet: FakeMachine, contact: Contact, seen: str
) -> None:
    fleet.contacts["10.0.0.2", 29400] = contact
    (found,) = fleet.look(coordinator.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, "10.0.0.2:29400")
    assert seen in found.seen
    assert found.fix


def test_a_name_that_nobody_knows(machine: FakeMachine) -> None:
    machine.settings("LLAMAFORGE_COORDINATOR=boss:29400")
    (found,) = machine.look(coordinator.CHECK)
    assert "names boss, a name that nobody here knows" in found.seen
    assert found.fix == ("echo 'ADDRESS boss' | tee -a /etc/hosts",)


def test_a_master_without_torchrun_is_the_usual_case(machine: FakeMachine) -> None:
    machine.settings("MASTER_ADDR=10.0.0.2")
    machine.contacts["10.0.0.2", 29500] = Contact.REFUSED
    (found,) = machine.look(coordinator.CHECK)
    assert found.severity is Severity.NOTE
    machine.contacts["10.0.0.2", 29500] = Contact.SILENT
    assert machine.look(coordinator.CHECK)[0].severity is Severity.ERROR


# ── LF303 ─────────────────────────────────────────────────────────────────────────────────────


def test_a_host_name_on_loopback(machine: FakeMachine) -> None:
    machine.settings("MASTER_ADDR=10.0.0.2")
    machine.write("/etc/hostname", "node1\n")
    machine.write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1\tnode1.local node1\n")
    machine.host("node1", "127.0.1.1")
    (found,) = machine.look(interface.CHECK)
    assert (found.severity, found.about) == (Severity.WARNING, "node1")
    assert found.fix == ("sed -i 's/^127\\.0\\.1\\.1\\s.*/10.0.0.1 node1/' /etc/hosts",)


def test_an_address_that_is_not_here_or_inside(machine: FakeMachine) -> None:
    inside = {"family": "inet", "local": "172.17.0.1", "scope": "global"}
    links(machine, {"ifname": "docker0", "flags": ["UP"], "mtu": 1500, "addr_info": [inside]})
    machine.settings("LLAMAFORGE_ADDRESS=10.0.0.77")
    (found,) = machine.look(interface.CHECK)
    assert "which this machine does not have; it has 10.0.0.1 (eth0)" in found.seen
    machine.settings("LLAMAFORGE_ADDRESS=172.17.0.1")
    (found,) = machine.look(interface.CHECK)
    assert "of docker0, which others can't reach" in found.seen
    assert "LLAMAFORGE_ADDRESS=10.0.0.1|" in found.fix[0]


def test_interfaces_that_are_wrong(fleet: FakeMachine) -> None:
    other = {"ifname": "wlan0", "flags": ["BROADCAST"], "mtu": 1500, "addr_info": []}
    links(fleet, other)
    base = "LLAMAFORGE_COORDINATOR=10.0.0.2:29400"
    for name, seen in (
        ("eth7", "there is no such interface, but eth0, wlan0"),
        ("wlan0", "which is down"),
    ):
        fleet.settings(base, f"export GLOO_SOCKET_IFNAME={name}")
        (found,) = fleet.look(interface.CHECK)
        assert (found.about, found.severity) == (name, Severity.ERROR)
        assert seen in found.seen
    links(fleet, {**other, "flags": ["UP"]})
    (found,) = fleet.look(interface.CHECK)
    assert "but the fleet is reached through eth0" in found.seen
    assert found.fix[0].startswith("sed -i 's|\\bGLOO_SOCKET_IFNAME=.*|GLOO_SOCKET_IFNAME=eth0|'")


# ── LF304, LF305, LF306 ───────────────────────────────────────────────────────────────────────


def test_a_slow_look_up_is_worse_than_no_name(fleet: FakeMachine) -> None:
    fleet.commands["getent hosts 10.0.0.2"] = TIMED_OUT
    (found,) = fleet.look(reverse_dns.CHECK)
    assert (found.severity, found.about) == (Severity.WARNING, "10.0.0.2")
    assert "more than 4 s" in found.seen
    assert found.fix == ("echo '10.0.0.2 node-10-0-0-2' | tee -a /etc/hosts",)
    fleet.says("getent hosts 10.0.0.2", code=2)
    assert fleet.look(reverse_dns.CHECK)[0].severity is Severity.NOTE


def test_an_address_on_loan(fleet: FakeMachine) -> None:
    links(fleet, dynamic=True, valid_life_time=3600)
    (found,) = fleet.look(dhcp.CHECK)
    assert (found.severity, found.about) == (Severity.NOTE, "10.0.0.1")
    assert "for 60 more minutes" in found.seen
    fleet.unit(Environment="LLAMAFORGE_ADDRESS=10.0.0.1")
    fleet.says("nmcli -g", "Wired 1\n")
    (found,) = fleet.look(dhcp.CHECK)
    assert found.severity is Severity.WARNING
    # DHCP stays on: the gateway comes from it
    assert found.fix[0] == "nmcli connection modify 'Wired 1' +ipv4.addresses 10.0.0.1/24"


SS = (
    "ESTAB 0 0 10.0.0.1:4 10.0.0.2:29400 cubic rto:204 bytes_sent:99 retrans:0/{again} "
    "segs_out:1000 segs_in:800{more}\n"
)


@pytest.mark.parametrize(("again", "more", "bad"), [(8, "", 0), (90, "", 1), (3, " backoff:4", 1)])
def test_packets_sent_again(fleet: FakeMachine, again: int, more: str, bad: int) -> None:
    fleet.says("ss -tinOH dst 10.0.0.2", SS.format(again=again, more=more))
    found = fleet.look(retransmits.CHECK)
    assert len(found) == bad
    if found:
        assert f"{again} of 1000 packets to 10.0.0.2" in found[0].seen
        assert fixes(found)[0] == "ip -s link show dev eth0"


# ── LF307, LF308, LF309 ───────────────────────────────────────────────────────────────────────


def test_full_packets_that_are_lost(fleet: FakeMachine) -> None:
    fleet.largest = 1400 - 52
    (found,) = fleet.look(mtu.CHECK)
    assert (found.severity, found.about) == (Severity.ERROR, "10.0.0.2")
    assert (
        "packets of 1500 bytes, which eth0 sends, don't reach 10.0.0.2; 1400 bytes do" in found.seen
    )
    assert found.fix[0].startswith("ip link set dev eth0 mtu 1400")
    assert fleet.spoken["10.0.0.2", 29400] == "tls"


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        ("waiting: the coordinator at c:1 refuses this worker: removed", "worker join 10.0.0.2:"),
        ("waiting: the coordinator refuses this worker: it speaks protocol 9", "journalctl"),
    ],
)
def test_a_coordinator_that_does_not_take_the_worker(
    fleet: FakeMachine, status: str, fix: str
) -> None:
    fleet.peer("127.0.0.1", 29500, {"connected": False, "status": status})
    (found,) = fleet.look(coordinator.CHECK)
    assert found.severity is Severity.ERROR
    assert status in found.seen
    assert fix in found.fix[0]
    fleet.peer("127.0.0.1", 29500, {"connected": True, "status": "waiting for a job"})
    assert fleet.look(coordinator.CHECK) == []


def test_versions_that_differ(fleet: FakeMachine) -> None:
    theirs = {**SAME, "torch": "2.12.1+cpu", "llamaforge": "0.2.0"}
    fleet.peer("10.0.0.3", 29500, {"connected": True, "versions": theirs})
    by_name = {f.about: f for f in fleet.look(peers.CHECK, "10.0.0.3")}
    assert set(by_name) == {"10.0.0.3 torch", "10.0.0.3 llamaforge"}
    assert "torch is 2.13.0+cpu here and 2.12.1+cpu on 10.0.0.3" in by_name["10.0.0.3 torch"].seen
    assert "# on 10.0.0.3" in by_name["10.0.0.3 torch"].fix[0]
    assert "# here" in by_name["10.0.0.3 llamaforge"].fix[0]
    fleet.peer("10.0.0.3", 29500, {"connected": True, "versions": {**SAME, "python": "3.14.1"}})
    (found,) = fleet.look(peers.CHECK, "10.0.0.3")
    assert "./install.sh --python python3.14  # here" in found.fix[0]


def test_peers_that_do_not_answer_as_workers(fleet: FakeMachine) -> None:
    fleet.contacts["10.0.0.3", 29500] = Contact.OPEN
    (found,) = fleet.look(peers.CHECK, "10.0.0.3")
    assert "it does not let this machine in" in found.seen
    assert found.severity is Severity.WARNING
    assert found.fix[0].startswith("llamaforge worker install --allow 10.0.0.1  # on 10.0.0.3")
    fleet.peer("10.0.0.3", 29500, {"nginx": True})
    assert "is no worker" in fleet.look(peers.CHECK, "10.0.0.3")[0].seen
    fleet.contacts["10.0.0.3", 29500] = Contact.REFUSED
    del fleet.answers["10.0.0.3", 29500]
    assert "refuses" in fleet.look(peers.CHECK, "10.0.0.3")[0].seen


def test_a_peer_without_a_port_is_found_at_the_next_one(fleet: FakeMachine) -> None:
    fleet.contacts["10.0.0.3", 29500] = Contact.REFUSED
    fleet.peer("10.0.0.3", 29501, {"connected": True})
    assert Subject(fleet, ["10.0.0.3"], {}).peers[0].port == 29501
    del fleet.answers["10.0.0.3", 29501]  # it turns us away
    assert Subject(fleet, ["10.0.0.3"], {}).peers[0].port == 29501
    assert Subject(fleet, ["[fd00::3]:99"], {}).peers[0][:2] == ("fd00::3", 99)


@pytest.mark.parametrize(
    ("late", "severity"), [(30.0, Severity.WARNING), (-4000.0, Severity.ERROR)]
)
def test_clocks_that_differ(fleet: FakeMachine, late: float, severity: Severity) -> None:
    fleet.peer("10.0.0.2", 29400, {}, late=late)
    (found,) = fleet.look(clock.CHECK)
    assert (found.severity, found.about) == (severity, "10.0.0.2")
    assert ("ahead of" if late > 0 else "behind") in found.seen


def test_a_clock_that_nothing_keeps_right(fleet: FakeMachine) -> None:
    fleet.says("timedatectl show", "NTP=no\nNTPSynchronized=no\n")
    (found,) = fleet.look(clock.CHECK)
    assert (found.severity, found.fix) == (Severity.WARNING, ("timedatectl set-ntp true",))
    fleet.says("systemd-detect-virt --container", "lxc\n")
    assert fleet.look(clock.CHECK)[0].severity is Severity.NOTE


@given(st.floats(1e9, 2e9), st.floats(0, 10), st.floats(-1e4, 1e4), st.floats(0, 1))
def test_skew_is_never_more_than_it_is(asked: float, took: float, off: float, share: float) -> None:
    """Whenever in between the other answered, from whole seconds of a clock that is `off` ahead."""
    date = float(int(asked + share * took + off))
    seen = clock.skew(asked, asked + took, date)
    assert abs(seen) <= abs(off) + 1e-3
    assert abs(off) - abs(seen) <= took + 1.001
