"""The look at a job's nodes before each of its generations: asks them, waits, and judges."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llamaforge.bundle.manifest import Manifest
from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.leading.preflight import ANSWER_SECONDS, Round, Verdict, judge
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.record import JobRecord
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import Job
from llamaforge.wire.messages import Peer, Preflight, PreflightReport, Roster


class Inspection:
    """Preflights of one job.

    Args:
        record: the job.
        nodes: the fleet.
    """

    def __init__(self, record: JobRecord, nodes: Nodes) -> None:
        self._record, self._nodes = record, nodes
        self._round: Round | None = None
        self.warnings: tuple[str, ...] = ()
        """What a person should know of the last one."""

    def take(self, node: Node, report: PreflightReport) -> None:
        """A node has answered."""
        self._nodes.measured(node, report.canary)
        if self._round is not None:
            self._round.take(node.name, report, time.time())

    def lost(self, node: Node) -> None:
        """A node is gone: it won't answer."""
        if self._round is not None:
            self._round.lost(node.name)

    async def run(
        self, number: int, names: Sequence[str], manifest: Manifest, alarm: Alarm
    ) -> Verdict:
        """Asks nodes and judges them.

        Args:
            number: the generation that is to come.
            names: the nodes.
            manifest: the files that they need.
            alarm: rung when something has changed.
        """
        asked = self._round = Round(number, names)
        for name in names:
            self._nodes.send(name, Roster(nodes=tuple(names)))
            self._nodes.send(name, self._question(number, names, manifest))
        until = time.monotonic() + ANSWER_SECONDS
        while not asked.done and time.monotonic() < until and not self._record.stop_reason:
            await alarm.wait(until)
        self._round = None
        wishes = self._record.submission.wishes
        verdict = judge(asked.reports, asked.received_at, wishes, missing=asked.missing)
        self.warnings = tuple(verdict.warnings)
        for name, (why, hint) in verdict.refused.items():
            text = f"{name} can't take part: {why}; {hint}"
            self._record.note("preflight", text, node=name, why=why, hint=hint)
        return verdict

    def _question(self, number: int, names: Sequence[str], manifest: Manifest) -> Preflight:
        work = self._record.work
        # A node alone has nobody to be compared with; its first slice after a boot takes seconds.
        compares = len(names) > 1 or self._record.submission.wishes.same_numbers
        peers = []
        for name in names:
            node = self._nodes.get(name)
            if node is not None:
                hello = node.hello
                peers.append(Peer(node=name, address=hello.address, port=hello.peer_port))
        return Preflight(
            job_id=self._record.id,
            generation=number,
            manifest=manifest,
            peers=tuple(peers),
            canary=work.spec.precision if isinstance(work, Job) and compares else "",
            threads=self._record.submission.wishes.threads,
        )

    @staticmethod
    def raise_if_hopeless(verdict: Verdict) -> None:
        """Ends a job that no node can take part in, for a reason that won't pass by itself.

        Raises:
            LlamaForgeError: names each node, what is wrong there and the fix.
        """
        if verdict.chosen or verdict.passing or not verdict.refused:
            return
        refused = verdict.refused.items()
        raise LlamaForgeError(
            "; ".join(f"node {name} can't take part: {why}" for name, (why, _) in refused),
            hint="; ".join(dict.fromkeys(hint for _, (_, hint) in refused)),
        )
