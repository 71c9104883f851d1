"""Reads `nft -j list ruleset` (libnftables-json(5)) into the model of `packet_filter`."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from llamaforge.doctor.packet_filter import Chain, Condition, Rule, network

_FIELDS = {
    ("ip", "saddr"): "source",
    ("ip6", "saddr"): "source",
    ("ip", "daddr"): "destination",
    ("ip6", "daddr"): "destination",
    ("tcp", "dport"): "port",
    ("th", "dport"): "port",
    ("ip", "protocol"): "protocol",
    ("ip6", "nexthdr"): "protocol",
}
_META = {"iifname": "interface", "iif": "interface", "l4proto": "protocol", "nfproto": "family"}
_FAMILIES = ("inet", "ip", "ip6")


class Table(NamedTuple):
    """One table of nftables."""

    family: str
    name: str
    chains: dict[str, Chain]
    inputs: tuple[str, ...]
    """Its chains that the kernel calls for packets to this machine."""


def read(text: str) -> list[Table]:
    """All tables. Raises ValueError when the text is not what nft prints."""
    items = json.loads(text)["nftables"]
    tables = [item["table"] for item in items if "table" in item]
    return [
        _table(items, found["family"], found["name"])
        for found in tables
        if found["family"] in _FAMILIES
    ]


def _table(items: list[dict[str, Any]], family: str, name: str) -> Table:
    mine = [
        (kind, body)
        for item in items
        for kind, body in item.items()
        if kind in ("chain", "rule", "set", "map")
        and (body.get("family"), body.get("table")) == (family, name)
    ]
    sets = {body["name"]: body.get("elem", []) for kind, body in mine if kind == "set"}
    rules: dict[str, list[Rule]] = {}
    for kind, body in mine:
        if kind == "rule":
            rules.setdefault(body["chain"], []).extend(_rules(body.get("expr", []), sets, family))
    chains = {
        body["name"]: Chain(
            body["name"], tuple(rules.get(body["name"], ())), body.get("policy", "")
        )
        for kind, body in mine
        if kind == "chain"
    }
    inputs = [b["name"] for kind, b in mine if kind == "chain" and b.get("hook") == "input"]
    return Table(family, name, chains, tuple(inputs))


def _rules(exprs: list[Any], sets: dict[str, Any], family: str) -> Iterator[Rule]:
    """One rule as one of the model's; a verdict map as one for each of its entries."""
    conditions: list[Condition] = []
    for expr in exprs:
        if not isinstance(expr, dict):  # a bare statement such as "accept" in old versions
            expr = {str(expr): None}
        kind, body = next(iter(expr.items()))
        if kind == "match":
            conditions.append(_condition(body, sets, family))
        elif kind in ("accept", "drop", "reject", "return"):
            yield Rule(tuple(conditions), kind)
            return
        elif kind in ("jump", "goto"):
            yield Rule(tuple(conditions), kind, body["target"])
            return
        elif kind == "vmap":
            yield from _entries(conditions, body, sets)
            return
        elif kind in ("xt", "limit"):
            conditions.append(Condition("unknown", ()))


def _entries(conditions: list[Condition], body: Any, sets: dict[str, Any]) -> Iterator[Rule]:
    data = body.get("data")
    pairs = data.get("set", []) if isinstance(data, dict) else []
    for key, action in pairs:
        kind, target = next(iter(action.items()))
        test = Condition(_field(body["key"]), tuple(_values(_field(body["key"]), key, sets)))
        yield Rule((*conditions, test), kind, target["target"] if target else "")


def _field(left: Any) -> str:
    if not isinstance(left, dict):
        return "unknown"
    if payload := left.get("payload"):
        return _FIELDS.get((payload.get("protocol"), payload.get("field")), "unknown")
    if meta := left.get("meta"):
        return _META.get(meta.get("key"), "unknown")
    return "state" if left.get("ct", {}).get("key") == "state" else "unknown"


def _condition(body: dict[str, Any], sets: dict[str, Any], family: str) -> Condition:
    field = _field(body["left"])
    if field == "family":
        same = family in ("inet", str(body["right"]).replace("ipv", "ip").replace("ip4", "ip"))
        return Condition("protocol" if same else "unknown", ("tcp",))
    try:
        values = tuple(_values(field, body["right"], sets))
    except (ValueError, TypeError, KeyError, IndexError):
        return Condition("unknown", ())
    return Condition(field, values, body.get("op") == "!=")


def _values(field: str, right: Any, sets: dict[str, Any]) -> Iterator[object]:
    """The values that a condition allows."""
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get(right[1:], [])}
    if isinstance(right, dict) and "elem" in right:
        right = right["elem"]["val"]
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if isinstance(right, list):
        for each in right:
            yield from _values(field, each, sets)
    elif field in ("source", "destination"):
        yield from _networks(right)
    elif field == "port":
        first, last = right["range"] if isinstance(right, dict) else (right, right)
        yield int(first), int(last)
    else:
        yield str(right)


def _networks(right: Any) -> Iterator[object]:
    if isinstance(right, str):
        yield network(right)
    elif "prefix" in right:
        yield network(f"{right['prefix']['addr']}/{right['prefix']['len']}")
    else:
        first, last = (ipaddress.ip_address(address) for address in right["range"])
        yield from ipaddress.summarize_address_range(first, last)
