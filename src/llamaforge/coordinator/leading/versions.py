"""What differs between the nodes of a job: versions that may change the bits of a result.

Nothing is inferred from them. Every generation measures with a canary slice whether its machines
compute alike, among each other and with those before; this only tells a person where to look.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamaforge.spec.versions import differ

Versions = Mapping[str, Mapping[str, str]]
"""By node: the versions that its worker names."""

_DECIDE = ("torch", "python", "llamaforge")


def differences(now: Versions, before: Versions) -> list[str]:
    """Sentences that name both nodes and both versions.

    Args:
        now: the nodes of a generation.
        before: the nodes of the job's earlier generations, as each one was last.
    """
    return [*_between(now), *_since(now, before)]


def _between(now: Versions) -> list[str]:
    """One sentence for each node that differs from the first one."""
    first, *others = sorted(now) or [""]
    told = []
    for other in others:
        for what in _DECIDE:
            mine, theirs = now[first].get(what, ""), now[other].get(what, "")
            if differ(what, mine, theirs):
                told.append(f"{first} has {what} {mine or '?'}, {other} has {theirs or '?'}")
    return told


def _since(now: Versions, before: Versions) -> list[str]:
    """One sentence for each node that came back with something else."""
    told = []
    for node in sorted(set(now) & set(before)):
        for what in _DECIDE:
            old, new = before[node].get(what, ""), now[node].get(what, "")
            if differ(what, old, new):
                told.append(f"{node} had {what} {old or '?'} before, it has {new or '?'} now")
    return told
