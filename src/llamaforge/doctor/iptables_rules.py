"""Reads `iptables-save` (iptables(8), what ufw uses too) into the model of `packet_filter`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from llamaforge.doctor.packet_filter import Chain, Condition, Rule, network

_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
_TAKES_VALUE = {
    *("-s", "-d", "-p", "-i", "-o", "-m", "-j", "-g", "--dport", "--dports", "--sport", "--sports"),
    *("--ctstate", "--state", "--dst-type", "--src-type", "--comment", "--limit", "--limit-burst"),
    *("--icmp-type", "--icmpv6-type", "--log-prefix", "--log-level", "--reject-with", "--name"),
    *("--seconds", "--hitcount", "--mask", "--hl-eq", "--match-set", "--uid-owner", "--mark"),
}
_IGNORED = {"-m", "--comment", "--log-prefix", "--log-level", "--reject-with"}
_FIELDS = {
    "-s": "source",
    "-d": "destination",
    "-p": "protocol",
    "-i": "interface",
    "--dport": "port",
    "--dports": "port",
    "--ctstate": "state",
    "--state": "state",
}


def read(text: str) -> dict[str, Chain]:
    """The chains of the filter table by name; empty where there is none."""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("*"):
            inside = line == "*filter"
        elif inside and line.startswith(":"):
            name, policy = line[1:].split()[:2]
            policies[name] = policy.lower() if policy != "-" else ""
        elif inside and line.startswith("-A "):
            words = shlex.split(line)
            rules.setdefault(words[1], []).append(_rule(words[2:]))
    return {
        name: Chain(name, tuple(rules.get(name, ())), policy) for name, policy in policies.items()
    }


def _rule(words: list[str]) -> Rule:
    conditions: list[Condition] = []
    verdict, target = "", ""
    for option, value, negated in _options(words):
        if option in ("-j", "-g"):
            verdict = _VERDICTS.get(value, "jump" if option == "-j" else "goto")
            target = "" if value in _VERDICTS else value
        elif option == "--dst-type":
            conditions.append(_local(value, negated))
        elif option not in _IGNORED:
            conditions.append(_condition(option, value, negated))
    return Rule(tuple(conditions), verdict, target)


def _options(words: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Option, value, and whether a `!` stands before it."""
    rest = iter(words)
    negated = False
    for word in rest:
        if word == "!":
            negated = True
            continue
        yield word, next(rest, "") if word in _TAKES_VALUE else "", negated
        negated = False


def _local(value: str, negated: bool) -> Condition:
    """What comes to this machine is for a local address, neither broadcast nor multicast."""
    fits = (value == "LOCAL") != negated
    return Condition("protocol" if fits else "unknown", ("tcp",))


def _condition(option: str, value: str, negated: bool) -> Condition:
    field = _FIELDS.get(option, "unknown")
    try:
        if field in ("source", "destination"):
            return Condition(field, (network(value),), negated)
        if field == "port":
            return Condition(field, tuple(_ports(value)), negated)
    except ValueError:
        return Condition("unknown", ())
    return Condition(field, tuple(value.split(",")), negated)


def _ports(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        first, colon, last = part.partition(":")
        yield int(first or 0), int(last or 65535) if colon else int(first)
