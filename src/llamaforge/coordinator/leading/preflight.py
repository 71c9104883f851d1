"""Who takes part in a generation, judged from what every node found out: a decision without I/O.

The nodes are told to look at themselves and at their links (`wire.messages.Preflight`); a `Round`
gathers their reports, and `judge` says who is refused and why, what a person should know, and
which nodes compute to the same bits. That is measured with a canary slice, never inferred.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from llamaforge.spec.versions import decisive, differ
from llamaforge.spec.wishes import Wishes
from llamaforge.wire.messages import LinkSpeed, PreflightReport

ANSWER_SECONDS = 20.0
"""How long a node may take to answer; it gives up its own checks long before."""
SKEW_SECONDS = 5.0
"""A clock may be off by so much before it is worth a word."""
SLOW_LINK = 0.1
"""A link is worth a word when it has less than this part of the usual speed of this generation."""

_MUST_AGREE = ("python", "torch")
"""Fingerprints without which ranks can't work together; see `spec.versions`."""
_HARDWARE = frozenset({"instructions", "cpu", "gpus", "driver"})
"""Fingerprints that say what a machine is made of (`worker.fingerprint`)."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a round."""

    refused: dict[str, tuple[str, str]]
    """By node: why it can't take part, and what to do about it."""
    passing: frozenset[str] = frozenset()
    """Those of the refused whose reason may end without anybody's help."""
    warnings: list[str]
    """Sentences for a person."""
    groups: tuple[tuple[str, ...], ...]
    """Nodes that compute to the same bits, the largest group first; ties by name."""
    chosen: tuple[str, ...]
    """Who takes part, by name: all that are not refused; where the job wants the same numbers,
    only the largest group."""


class Round:
    """One preflight of a generation: who was asked and who has answered.

    Args:
        generation: its number.
        nodes: who was asked.
    """

    def __init__(self, generation: int, nodes: Sequence[str]) -> None:
        self.generation, self.nodes = generation, tuple(nodes)
        self.reports: dict[str, PreflightReport] = {}
        self.received_at: dict[str, float] = {}
        """By node: Unix time in seconds at which its report arrived."""
        self._gone: set[str] = set()

    def take(self, node: str, report: PreflightReport, at: float | None = None) -> bool:
        """Takes a report.

        Args:
            node: whose it is.
            report: what it says.
            at: the coordinator's clock, Unix time in seconds; None: its clock isn't compared.

        Returns:
            Whether it belongs to this round; others are ignored.
        """
        if report.generation != self.generation or node not in self.nodes:
            return False
        self.reports[node] = report
        if at is not None:
            self.received_at[node] = at
        return True

    def lost(self, node: str) -> None:
        """A node is gone: it is waited for no longer."""
        self._gone.add(node)

    @property
    def missing(self) -> tuple[str, ...]:
        """Nodes without a report, gone ones too."""
        return tuple(node for node in self.nodes if node not in self.reports)

    @property
    def done(self) -> bool:
        """Whether nobody is left to be waited for."""
        return all(node in self._gone for node in self.missing)


def judge(
    reports: Mapping[str, PreflightReport],
    received_at: Mapping[str, float],
    wishes: Wishes,
    *,
    missing: Collection[str] = (),
) -> Verdict:
    """Who takes part, who doesn't, and what should be known.

    Args:
        reports: by node.
        received_at: by node: the coordinator's clock at the arrival, Unix time in seconds.
        wishes: of the job.
        missing: nodes that were asked and have not answered.
    """
    refused = {node: _silent(node) for node in sorted(missing) if node not in reports}
    for node in sorted(reports):
        if reports[node].refusal:
            refused[node] = reports[node].refusal, reports[node].hint
    refused.update(_other_versions(_without(reports, refused)))
    refused.update(_unreachable(_without(reports, refused)))
    there = _without(reports, refused)
    groups = _groups(there)
    chosen = groups[0] if wishes.same_numbers and groups else tuple(sorted(there))
    warnings = [
        *(f"{node}: {said}" for node in sorted(there) for said in there[node].warnings),
        *_clocks(there, received_at),
        *_differences(there, measured=len(groups) == 1 and bool(there[groups[0][0]].canary)),
        *_slow_links(there),
        *_other_numbers(groups, wishes),
    ]
    return Verdict(
        refused=refused,
        passing=frozenset(node for node in refused if node not in reports or reports[node].passing),
        warnings=warnings,
        groups=groups,
        chosen=chosen,
    )


def _silent(node: str) -> tuple[str, str]:
    return (
        f"it did not answer the preflight within {ANSWER_SECONDS:.0f} s",
        f"on {node}: systemctl status llamaforge-worker; journalctl -u llamaforge-worker -n 50",
    )


def _without(
    reports: Mapping[str, PreflightReport], refused: Collection[str]
) -> dict[str, PreflightReport]:
    return {node: reports[node] for node in sorted(reports) if node not in refused}


# ── versions ──────────────────────────────────────────────────────────────────────────────────


def _other_versions(reports: Mapping[str, PreflightReport]) -> dict[str, tuple[str, str]]:
    """Nodes whose Python or torch is not that of most; the first by name decides a tie."""
    if not reports:
        return {}
    kinds = {
        node: tuple(decisive(what, report.fingerprint.get(what, "")) for what in _MUST_AGREE)
        for node, report in reports.items()
    }
    counted = Counter(kinds.values())
    most = max(counted.values())
    model = next(node for node in sorted(kinds) if counted[kinds[node]] == most)
    return {
        node: _other_version(node, reports[node], model, reports[model])
        for node in sorted(kinds)
        if kinds[node] != kinds[model]
    }


def _other_version(
    node: str, mine: PreflightReport, model: str, theirs: PreflightReport
) -> tuple[str, str]:
    odd = [
        (what, mine.fingerprint.get(what) or "none", theirs.fingerprint.get(what) or "none")
        for what in _MUST_AGREE
        if differ(what, mine.fingerprint.get(what, ""), theirs.fingerprint.get(what, ""))
    ]
    why = ", ".join(f"{what} {here} where {model} has {there}" for what, here, there in odd)
    what, _, wanted = odd[0]
    return f"it has {why}", f"give {node} and the others the same {what}, such as {wanted}"


def _differences(reports: Mapping[str, PreflightReport], measured: bool) -> list[str]:
    """One sentence for each other difference, with who has what.

    Args:
        reports: by node.
        measured: canary slices came out alike, so that other hardware is not worth a word.
    """
    names = {name for report in reports.values() for name in report.fingerprint}
    told = []
    for name in sorted(names - (_HARDWARE if measured else frozenset())):
        values: dict[str, list[str]] = {}
        for node in sorted(reports):
            values.setdefault(reports[node].fingerprint.get(name, ""), []).append(node)
        if len(values) > 1 and not (name in _MUST_AGREE and _compatible(name, values)):
            sides = "; ".join(f"{', '.join(at)}: {value or '–'}" for value, at in values.items())
            told.append(f"{name} differs ({sides})")
    return told


def _compatible(name: str, values: Iterable[str]) -> bool:
    return len({decisive(name, value) for value in values}) == 1


# ── links ─────────────────────────────────────────────────────────────────────────────────────


def _unreachable(reports: Mapping[str, PreflightReport]) -> dict[str, tuple[str, str]]:
    """Refuses, one after the other, the node that has the most broken links with the rest.

    Of equals it is the one that more others could not reach (its firewall), then the last by name.
    """
    broken = {
        (node, link.node): link
        for node, report in reports.items()
        for link in report.links
        if not link.ok and link.node in reports and link.node != node
    }
    refused: dict[str, tuple[str, str]] = {}
    while broken:
        worst = max(sorted(reports), key=lambda node: (*_blame(node, broken), node))
        refused[worst] = _cut_off(worst, broken)
        broken = {pair: link for pair, link in broken.items() if worst not in pair}
    return refused


def _blame(node: str, broken: Mapping[tuple[str, str], LinkSpeed]) -> tuple[int, int]:
    partners = {frozenset(pair) for pair in broken if node in pair}
    return len(partners), sum(1 for pair in broken if pair[1] == node)


def _cut_off(node: str, broken: Mapping[tuple[str, str], LinkSpeed]) -> tuple[str, str]:
    to = sorted((pair[0], link) for pair, link in broken.items() if pair[1] == node)
    if to:
        by, link = to[0][0], to[0][1]
        others = f" (nor can {', '.join(name for name, _ in to[1:])})" if len(to) > 1 else ""
        return f"{by} can't reach it at {link.address}{others}: {link.error}", _hint(node, link)
    pair, link = min((pair, link) for pair, link in broken.items() if pair[0] == node)
    return f"it can't reach {pair[1]} at {link.address}: {link.error}", _hint(pair[1], link)


def _hint(node: str, link: LinkSpeed) -> str:
    port = link.address.rpartition(":")[2]
    return (
        f"open TCP port {port} for the fleet on {node} (`sudo llamaforge doctor` there names the "
        "rule that blocks it), or tell its worker another address with --address"
    )


def _slow_links(reports: Mapping[str, PreflightReport]) -> list[str]:
    speeds = {
        (node, link.node): link.bytes_per_second
        for node, report in reports.items()
        for link in report.links
        if link.ok and link.bytes_per_second > 0 and link.node in reports
    }
    if len(speeds) < 2:
        return []
    usual = statistics.median(speeds.values())
    return [
        f"the link from {one} to {other} is slow: {speed / 1e6:.1f} MB/s, "
        f"{usual / 1e6:.0f} MB/s are usual here"
        for (one, other), speed in sorted(speeds.items())
        if speed < SLOW_LINK * usual
    ]


# ── clocks and numbers ────────────────────────────────────────────────────────────────────────


def _clocks(reports: Mapping[str, PreflightReport], received_at: Mapping[str, float]) -> list[str]:
    told = []
    for node, report in reports.items():
        off = report.time - received_at.get(node, report.time)
        if report.time and abs(off) > SKEW_SECONDS:
            side = "ahead of" if off > 0 else "behind"
            told.append(
                f"the clock of {node} is {abs(off):.0f} s {side} the coordinator's: "
                "timedatectl set-ntp true"
            )
    return told


def _groups(reports: Mapping[str, PreflightReport]) -> tuple[tuple[str, ...], ...]:
    """By canary. Where none was asked for, all are one group; one that failed stands alone."""
    asked = any(report.canary for report in reports.values())
    groups: dict[str, list[str]] = {}
    for node in sorted(reports):
        canary = reports[node].canary
        groups.setdefault(canary or (f"unknown of {node}" if asked else ""), []).append(node)
    return tuple(sorted((tuple(group) for group in groups.values()), key=lambda g: (-len(g), g)))


def _other_numbers(groups: Sequence[tuple[str, ...]], wishes: Wishes) -> list[str]:
    if len(groups) < 2:
        return []
    sides = " | ".join(", ".join(group) for group in groups)
    what = (
        f"only {', '.join(groups[0])} take part, since the job wants the same numbers"
        if wishes.same_numbers
        else "the job keeps its rows, not the bits of its numbers (--same-numbers leaves some out)"
    )
    return [f"machines compute a canary slice to different bits ({sides}): {what}"]
