"""Following the rules of nftables, iptables, ufw and firewalld as the kernel does."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llamaforge.doctor import iptables_rules, nft_rules
from llamaforge.doctor.packet_filter import Chain, Condition, Packet, Rule, network, verdict

A, B = "10.0.0.2", "10.0.0.3"
ADDRESSES = st.integers(0, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n)))
PORTS = st.integers(1, 65535)


def accepts(source: str, ports: tuple[int, int]) -> Rule:
    return Rule((Condition("source", (network(source),)), Condition("port", (ports,))), "accept")


@given(ADDRESSES, PORTS, ADDRESSES, PORTS, PORTS)
def test_exactly_the_address_and_ports_of_a_rule_pass(
    source: str, port: int, allowed: str, one: int, other: int
) -> None:
    first, last = sorted((one, other))
    chain = Chain("input", (accepts(allowed, (first, last)),), "drop")
    passes = verdict(chain, {}, Packet(source, port)) == "accept"
    assert passes == (source == allowed and first <= port <= last)


@given(ADDRESSES, PORTS)
def test_a_condition_that_is_not_known_never_holds(source: str, port: int) -> None:
    for negated in (False, True):
        unknown = Rule((Condition("moon phase", ("full",), negated),), "accept")
        chain = Chain("input", (unknown,), "drop")
        assert verdict(chain, {}, Packet(source, port)) == "drop"


def test_jump_comes_back_and_goto_does_not() -> None:
    chains = {"inner": Chain("inner", (Rule((), "return"), Rule((), "accept")))}
    for kind, expected in (("jump", "accept"), ("goto", "drop")):
        start = Chain("input", (Rule((), kind, "inner"), Rule((), "accept")), "drop")
        assert verdict(start, chains, Packet(A, 1)) == expected


def test_a_loop_of_jumps_ends() -> None:
    loop = Chain("input", (Rule((), "jump", "input"),), "drop")
    assert verdict(loop, {"input": loop}, Packet(A, 1)) == "drop"


# ── nftables ──────────────────────────────────────────────────────────────────────────────────


def match(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": op, "left": left, "right": right}}


def ruleset(*rules: list[Any], policy: str = "drop", sets: list[Any] | None = None) -> str:
    items: list[Any] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "filter", "handle": 1}},
        {
            "chain": {
                "family": "inet",
                "table": "filter",
                "name": "input",
                "handle": 1,
                "type": "filter",
                "hook": "input",
                "prio": 0,
                "policy": policy,
            }
        },
        *(sets or []),
    ]
    for expr in rules:
        rule = {"family": "inet", "table": "filter", "chain": "input", "expr": expr}
        items.append({"rule": rule})
    return json.dumps({"nftables": items})


def nft(text: str, packet: Packet) -> str:
    (table,) = nft_rules.read(text)
    return verdict(table.chains[table.inputs[0]], table.chains, packet)


STATE = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}
LOOPBACK = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}


def test_nft_loopback_and_established_open_nothing_for_others() -> None:
    text = ruleset([STATE, {"accept": None}], [LOOPBACK, {"accept": None}])
    assert nft(text, Packet(A, 29500)) == "drop"
    assert nft(text, Packet("127.0.0.1", 29500, "lo")) == "accept"


def test_nft_sets_prefixes_and_ranges() -> None:
    rule = [
        match("ip", "saddr", {"set": [A, {"prefix": {"addr": "10.1.0.0", "len": 16}}]}),
        match("tcp", "dport", {"set": [29500, {"range": [32768, 60999]}]}),
        {"counter": {"packets": 0, "bytes": 0}},
        {"accept": None},
    ]
    for source, port, expected in (
        (A, 29500, "accept"),
        (A, 60999, "accept"),
        ("10.1.7.7", 40000, "accept"),
        (A, 61000, "drop"),
        (B, 29500, "drop"),
    ):
        assert nft(ruleset(rule), Packet(source, port)) == expected


def test_nft_named_sets_and_address_ranges() -> None:
    fleet = {
        "set": {
            "family": "inet",
            "table": "filter",
            "name": "fleet",
            "type": "ipv4_addr",
            "elem": [{"elem": {"val": A, "timeout": 60}}, {"range": ["10.0.0.8", "10.0.0.11"]}],
        }
    }
    text = ruleset([match("ip", "saddr", "@fleet"), {"accept": None}], sets=[fleet])
    assert nft(text, Packet(A, 1)) == "accept"
    assert nft(text, Packet("10.0.0.11", 1)) == "accept"
    assert nft(text, Packet("10.0.0.12", 1)) == "drop"


def test_nft_not_equal_and_verdict_maps() -> None:
    drop_others = [match("ip", "saddr", A, "!="), {"drop": None}]
    assert nft(ruleset(drop_others, policy="accept"), Packet(A, 1)) == "accept"
    assert nft(ruleset(drop_others, policy="accept"), Packet(B, 1)) == "drop"
    states = {
        "key": {"ct": {"key": "state"}},
        "data": {"set": [["established", {"accept": None}], ["new", {"drop": None}]]},
    }
    assert nft(ruleset([{"vmap": states}], policy="accept"), Packet(A, 1)) == "drop"


def test_nft_the_last_rule_may_reject_under_a_policy_of_accept() -> None:
    text = ruleset([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}], policy="accept")
    assert nft(text, Packet(A, 29500)) == "reject"


def test_nft_reads_a_ruleset_without_chains() -> None:
    assert nft_rules.read('{"nftables": [{"metainfo": {}}]}') == []


# ── iptables and ufw ──────────────────────────────────────────────────────────────────────────

UFW = """\
# Generated by iptables-save v1.8.9 (nf_tables)
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-after-input - [0:0]
:ufw-before-input - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
:ufw-skip-to-policy-input - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input
-A ufw-after-input -m addrtype --dst-type BROADCAST -j ufw-skip-to-policy-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-skip-to-policy-input -j DROP
{rule}COMMIT
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -j ACCEPT
COMMIT
"""
OPENED = (
    "-A ufw-user-input -s 10.0.0.2/32 -p tcp -m multiport --dports 29500,32768:60999 -j ACCEPT\n"
)


def saved(text: str, packet: Packet) -> str:
    chains = iptables_rules.read(text)
    return verdict(chains["INPUT"], chains, packet)


def test_ufw_drops_by_default_and_opens_by_its_rule() -> None:
    assert saved(UFW.format(rule=""), Packet(A, 29500)) == "drop"
    opened = UFW.format(rule=OPENED)
    assert saved(opened, Packet(A, 29500)) == "accept"
    assert saved(opened, Packet(A, 50000)) == "accept"
    assert saved(opened, Packet(A, 22)) == "drop"
    assert saved(opened, Packet(B, 29500)) == "drop"


def test_iptables_negation_and_user_chains() -> None:
    text = (
        "*filter\n:INPUT ACCEPT [0:0]\n:fleet - [0:0]\n-A INPUT ! -i lo -j fleet\n"
        '-A fleet ! -s 10.0.0.0/24 -m comment --comment "only us, -j ACCEPT" -j REJECT '
        "--reject-with icmp-port-unreachable\nCOMMIT\n"
    )
    assert saved(text, Packet(A, 1)) == "accept"
    assert saved(text, Packet("10.0.1.1", 1)) == "reject"
    assert saved(text, Packet("10.0.1.1", 1, "lo")) == "accept"


def test_iptables_without_a_filter_table() -> None:
    assert iptables_rules.read("*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n") == {}
