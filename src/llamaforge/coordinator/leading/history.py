"""The generations of one job on this coordinator: who took part, from where to where, and why not
longer. The proof of the job tells all of them, those whose steps were done again as well."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.wire.updates import NodeRanks


class History:
    """Generations, oldest first.

    Args:
        entries: those of an earlier life of the coordinator.
        versions: what each node that has taken part ran when it last did.
    """

    def __init__(
        self,
        entries: Sequence[dict[str, Any]] = (),
        versions: Mapping[str, dict[str, str]] | None = None,
    ) -> None:
        self.versions: dict[str, dict[str, str]] = dict(versions or {})
        """What each node that has taken part ran when it last did."""
        self._entries = [dict(entry) for entry in entries]

    @property
    def entries(self) -> tuple[dict[str, Any], ...]:
        """What is known of each generation, for the ledger."""
        return tuple(dict(entry) for entry in self._entries)

    @property
    def number(self) -> int:
        """The last generation's number; 0 before the first."""
        return int(self._entries[-1]["generation"]) if self._entries else 0

    @property
    def nodes(self) -> frozenset[str]:
        """The last generation's nodes."""
        return frozenset(self._entries[-1]["ranks"]) if self._entries else frozenset()

    @property
    def members(self) -> int:
        """How many nodes the last generation had; 0 before the first."""
        return len(self.nodes)

    def began(
        self,
        number: int,
        members: Sequence[NodeRanks],
        versions: Mapping[str, Mapping[str, str]],
        step: int,
    ) -> None:
        """A generation starts after `step`."""
        self.versions |= {node: dict(of) for node, of in versions.items()}
        self._entries.append(
            {
                "generation": number,
                "first_step": step + 1,
                "ranks": {member.node: member.count for member in members},
                "started": round(time.time(), 3),
            }
        )

    def ended(self, why: str, *, step: int) -> None:
        """The last generation is over; `step` is the last one that it committed."""
        if self._entries and "ended" not in self._entries[-1]:
            first_line = why.partition("\n")[0]
            self._entries[-1] |= {"last_step": step, "ended": first_line}

    def proven(self, outcome: Outcome) -> Outcome:
        """The outcome with all generations in its proof.

        The ranks' proof holds those that the result stands on; to these it adds how they ended.
        The others, whose steps were lost and done again, are listed with `kept` false.
        """
        if outcome.proof is None or "generations" not in outcome.proof:
            return outcome
        stands = {past["generation"]: past for past in outcome.proof["generations"]}
        for entry in self._entries:
            number = entry["generation"]
            if number in stands:
                stands[number] = {**entry, **stands[number]}
            else:
                stands[number] = {**entry, "kept": False}
        proof = {**outcome.proof, "generations": [stands[n] for n in sorted(stands)]}
        return msgspec.structs.replace(outcome, proof=proof)
