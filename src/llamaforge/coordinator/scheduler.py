"""Which waiting jobs start now, on which nodes, and why the others wait: pure arithmetic.

Jobs are looked at in order: higher priority first, then who came first. A job starts with at least
its minimum of nodes at once, or not at all. One that can't start yet keeps the free nodes that it
could use, up to its minimum, from all jobs behind it; so it starts at the latest when what runs now
has ended, whatever is submitted later. Jobs behind it get what it can't use. A job that asks for
more than this fleet has keeps nothing: it would wait in front of idle machines for ever.

Nodes of one generation must reach each other, so loopback addresses aren't mixed with others. With
`same_numbers` they must also have the same canary digest. Nodes that nobody has measured yet stand
apart from the measured ones; they are taken when these are too few, and the preflight, which
measures, has the last word. Were they never taken, a new fleet would never be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llamaforge.coordinator.placement import Candidate, natural
from llamaforge.spec.states import NodeState
from llamaforge.spec.wishes import Wishes

NAMED = 4
"""Nodes that a reason names before it only counts."""
_NOT_SOON = (NodeState.LOST, NodeState.CORDONED, NodeState.DRAINING)
"""A node in these states becomes free only if something unforeseen happens."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A job that waits for nodes."""

    id: str
    number: int
    """Counts the jobs in the order in which they were submitted."""
    wishes: Wishes
    must: frozenset[str] = frozenset()
    """Nodes without which it doesn't go on (policy `wait`)."""
    prefer: frozenset[str] = frozenset()
    """Nodes of its last generation: they have its files already."""
    count: int = 0
    """How many nodes its last generation had; with the policy `replace` it wants as many."""
    avoid: frozenset[str] = frozenset()
    """Nodes to be left out as long as there are enough others."""
    never: frozenset[str] = frozenset()
    """Nodes that can't take part for now: a preflight has just refused them."""
    canary: str = ""
    """Canary digest of its earlier generations, with `same_numbers`; empty before the first."""

    @property
    def need(self) -> int:
        """Nodes without which it can't start."""
        again = self.count if self.wishes.on_node_loss == "replace" else 0
        return max(1, self.wishes.min_nodes, again, len(self.must))


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A job that starts, and all nodes of its generation, ordered by name."""

    job_id: str
    nodes: tuple[str, ...]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of each waiting job."""

    starts: tuple[Start, ...]
    waits: Mapping[str, str]
    """Job to the reason why it waits, for people."""


def schedule(waiting: Sequence[Waiting], nodes: Sequence[Candidate]) -> Decision:
    """Decides about all waiting jobs at once.

    Args:
        waiting: the jobs that could start, in any order.
        nodes: all nodes that the fleet knows, free or not, in any order.
    """
    desk = _Desk(nodes)
    for job in sorted(waiting, key=lambda job: (-job.wishes.priority, job.number)):
        desk.consider(job)
    return Decision(starts=tuple(desk.starts), waits=desk.waits)


class _Group:
    """Nodes that may be together in one generation of a job, ordered by name."""

    def __init__(self, members: Iterable[Candidate], reserve: Iterable[Candidate] = ()) -> None:
        self.reserve = frozenset(node.name for node in reserve)
        """Members that are taken only when the others are too few."""
        both = sorted((*members, *reserve), key=lambda node: natural(node.name))
        self.order = tuple(node.name for node in both)
        self.names = frozenset(self.order)
        self.soon = frozenset(node.name for node in both if node.state not in _NOT_SOON)
        """Those that are free or will be by themselves."""


class _Fit:
    """Which nodes could ever run jobs with the same needs."""

    def __init__(self, wishes: Wishes, canary: str, nodes: Sequence[Candidate]) -> None:
        self.unfit = {node.name: why for node in nodes if (why := _unfit(node, wishes))}
        fitting = [node for node in nodes if node.name not in self.unfit]
        self.names = frozenset(node.name for node in fitting)
        self.groups: list[_Group] = []
        for loopback in (False, True):
            side = [node for node in fitting if node.loopback is loopback]
            self.groups += _canary_groups(side, canary) if wishes.same_numbers else [_Group(side)]


class _Desk:
    """One round of decisions; each job sees what those before it have left."""

    def __init__(self, nodes: Sequence[Candidate]) -> None:
        self.starts: list[Start] = []
        self.waits: dict[str, str] = {}
        self._nodes = sorted(nodes, key=lambda node: natural(node.name))
        self._named = {node.name: node for node in self._nodes}
        self._places = {node.name: place for place, node in enumerate(self._nodes)}
        self._free = frozenset(node.name for node in self._nodes if node.free)
        self._left = set(self._free)
        self._kept: dict[str, str] = {}
        """Node to the job that got it or keeps it in this round."""
        self._claims: list[tuple[str, _Fit]] = []
        """Jobs so far that wait for nodes which will come."""
        self._fits: dict[tuple[object, ...], _Fit] = {}

    def consider(self, job: Waiting) -> None:
        """Starts a job, or keeps nodes for it and says why it waits."""
        fit = self._fit(job)
        group = self._group(job, fit)
        chosen = self._choose(job, group)
        if len(chosen) >= job.need and job.must <= set(chosen):
            ordered = sorted(chosen, key=self._places.__getitem__)
            self.starts.append(Start(job_id=job.id, nodes=tuple(ordered)))
        else:
            self.waits[job.id] = self._why(job, fit, group)
            chosen = chosen[: job.need] if _attainable(job, group) else []
            if _attainable(job, group):
                self._claims.append((job.id, fit))
        self._left.difference_update(chosen)
        self._kept.update(dict.fromkeys(chosen, job.id))

    def _fit(self, job: Waiting) -> _Fit:
        wishes = job.wishes
        needs = (frozenset(wishes.labels), wishes.min_memory, wishes.min_gpus)
        key = (*needs, wishes.same_numbers and (job.canary or True))
        if key not in self._fits:
            self._fits[key] = _Fit(wishes, job.canary, self._nodes)
        return self._fits[key]

    def _group(self, job: Waiting, fit: _Fit) -> _Group:
        """Where it starts or waits."""
        groups = [group for group in fit.groups if group.order and job.must <= group.names]
        if len(groups) == 1:
            return groups[0]
        return max(groups, key=lambda group: self._worth(job, group), default=_Group(()))

    def _worth(self, job: Waiting, group: _Group) -> tuple[bool, bool, bool, int, int]:
        """Which group a job takes: one that can start now, could at all, knows it, is large."""
        free = len(self._choose(job, group))
        return (
            free >= job.need,
            _attainable(job, group),
            bool(group.names & job.prefer),
            free,
            len(group.soon),
        )

    def _choose(self, job: Waiting, group: _Group) -> list[str]:
        """The free nodes that it would take, most wanted first.

        Those to be avoided, or held in reserve, only until there are enough.
        """
        free = (group.names & self._left) - job.never
        if not free:
            return []
        spared = (job.avoid | group.reserve) - job.must
        ordered = sorted(free, key=self._places.__getitem__)
        if job.must or job.prefer:
            ordered.sort(key=lambda name: (name not in job.must, name not in job.prefer))
        most = max(job.need, job.wishes.max_nodes or len(ordered))
        wanted = [name for name in ordered if name not in spared][:most]
        missing = job.need - len(wanted)
        return wanted + [name for name in ordered if name in spared][: max(0, missing)]

    # ── words ─────────────────────────────────────────────────────────────────────────────────

    def _why(self, job: Waiting, fit: _Fit, group: _Group) -> str:
        if away := job.must - self._free:
            return f"waits for {_names(away)} to come back ({self._listed(away, fit)})"
        if not self._nodes:
            return f"waits for {_count(job.need, 'node')}: none has joined"
        if _attainable(job, group):
            ahead = (claim for claim, other in reversed(self._claims) if other.names & fit.names)
            if before := next(ahead, self._taker(job, group)):
                return f"waits behind {before}"
        return self._short_of(job, fit, group)

    def _taker(self, job: Waiting, group: _Group) -> str:
        """The job but for which this one could start now; empty when there is none."""
        if len(group.names & self._free) < job.need:
            return ""
        return next((self._kept[name] for name in group.order if name in self._kept), "")

    def _short_of(self, job: Waiting, fit: _Fit, group: _Group) -> str:
        have = min(job.need, len(group.names & self._left))
        others = [node.name for node in self._nodes if node.name not in group.names & self._left]
        listed = f" ({self._listed(others, fit)})" if others else ""
        more = _count(job.need - have, "more node" if have else "node")
        words = f"waits for {more}: {have} of {job.need} can be had now{listed}"
        if len(group.names) < job.need:
            words += f"; the whole fleet has {len(group.names)} that would do together"
        return words

    def _listed(self, names: Iterable[str], fit: _Fit) -> str:
        """What is the matter with some nodes, the first few by name."""
        ordered = sorted(names, key=natural)
        shown = [self._matter(name, fit) for name in ordered[:NAMED]]
        rest = len(ordered) - len(shown)
        return ", ".join(shown) + (f" and {rest} more" if rest else "")

    def _matter(self, name: str, fit: _Fit) -> str:
        node = self._named.get(name)
        if node is None:
            return f"{name} is not in the fleet"
        if name in fit.unfit:
            return f"{name} {fit.unfit[name]}"
        if name in self._kept:
            return f"{name} is kept for {self._kept[name]}"
        if not node.free:
            return f"{name} is {node.why_not or node.state.value}"
        return f"{name} can't be together with the others"


def _attainable(job: Waiting, group: _Group) -> bool:
    """Whether waiting alone brings a job the nodes that it needs."""
    soon = group.soon - job.never
    return len(soon) >= job.need and job.must <= soon


def _canary_groups(nodes: Sequence[Candidate], canary: str) -> list[_Group]:
    """Nodes that compute the same bits; `canary` is the digest that a job is bound to, if any."""
    unknown = [node for node in nodes if not node.canary]
    digests = {canary} if canary else {node.canary for node in nodes if node.canary}
    groups = [
        _Group([node for node in nodes if node.canary == digest], unknown)
        for digest in sorted(digests)
    ]
    return groups or [_Group(unknown)]


def _unfit(node: Candidate, wishes: Wishes) -> str:
    """What a node lacks, to be read after its name; empty when it lacks nothing."""
    if lacking := [label for label in wishes.labels if label not in node.labels]:
        return f"lacks the label {lacking[0]}"
    if node.memory < wishes.min_memory:
        return f"has {_gib(node.memory)} of the {_gib(wishes.min_memory)}"
    if node.gpus < wishes.min_gpus:
        return f"has {node.gpus} of the {_count(wishes.min_gpus, 'GPU')}"
    return ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.4g} GiB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _names(names: Iterable[str]) -> str:
    return " and ".join(sorted(names, key=natural))
