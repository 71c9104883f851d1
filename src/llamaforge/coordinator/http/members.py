"""Who belongs to the fleet: nodes and people that joined, and those that were sent away.

Each joining has an epoch, which the serial numbers of all its certificates begin with. A node
that was removed, or joined anew, is refused with every certificate from before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from llamaforge.coordinator.ledger import Ledger
from llamaforge.errors import UserError
from llamaforge.wire.api import Person

Kind = Literal["node", "person"]
_TABLES: dict[Kind, tuple[str, str]] = {
    "node": ("nodes", "removed"),
    "person": ("people", "withdrawn"),
}


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One node or person."""

    name: str
    epoch: str
    """What its certificates' serial numbers begin with; empty before it has one."""
    since: float
    """Unix time in seconds at which it joined first."""
    out: bool = False
    """Whether it was removed or withdrawn."""


class Members:
    """The register.

    Args:
        ledger: where it stands.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._members: dict[tuple[Kind, str], Member] = {}
        self.on_out: list[Callable[[Kind, str], None]] = []
        """Told at once who was removed or withdrawn: kind and name."""
        for kind, (table, out) in _TABLES.items():
            rows = ledger.read(f"SELECT name, since, {out}, serial FROM {table}")
            for name, since, gone, serial in rows:
                self._keep(
                    kind, Member(name=name, epoch=serial or "", since=since or 0.0, out=bool(gone))
                )

    def get(self, kind: Kind, name: str) -> Member | None:
        """A member by its name, however it is capitalised."""
        return self._members.get((kind, name.lower()))

    def all(self, kind: Kind) -> tuple[Member, ...]:
        """All of a kind, by name."""
        found = [member for (of, _), member in self._members.items() if of == kind]
        return tuple(sorted(found, key=lambda member: member.name))

    def people(self) -> tuple[Person, ...]:
        """All people who ever had a certificate."""
        return tuple(
            Person(name=member.name, since=member.since, withdrawn=member.out)
            for member in self.all("person")
        )

    def refusal(self, kind: Kind, name: str, epoch: str) -> str:
        """Why somebody with a certificate of the fleet is not let in; empty when it is."""
        member = self.get(kind, name)
        who = f"{kind} {name}"
        if member is None:
            return f"{who} is not known to this fleet"
        if member.out and kind == "node":
            return f"{who} was removed from this fleet"
        if member.out:
            return f"{who} may use this fleet no more"
        if epoch != member.epoch:
            return f"{who} has joined anew since, and this certificate is from before"
        return ""

    def admit(self, kind: Kind, name: str, epoch: str, *, by: str) -> None:
        """A node or a person has joined, or joined again."""
        old = self.get(kind, name)
        table, out = _TABLES[kind]
        since = old.since if old else time.time()
        self._keep(kind, Member(name=name, epoch=epoch, since=since))
        self._ledger.write(
            f"INSERT INTO {table} (name, since, {out}, serial) VALUES (?, ?, 0, ?) "
            f"ON CONFLICT (name) DO UPDATE SET {out} = 0, serial = excluded.serial",
            *(name, since, epoch),
        )
        again = old is not None and old.epoch
        reason = "with a new certificate; earlier ones are refused" if again else ""
        self._ledger.event(kind, name, "joined again" if again else "joined", reason, by)

    def send_away(self, kind: Kind, name: str, reason: str, *, by: str) -> None:
        """Removes a node or withdraws a person, at once.

        Raises:
            UserError: nobody of that name is there.
        """
        old = self.get(kind, name)
        if old is None or old.out:
            names = ", ".join(m.name for m in self.all(kind) if not m.out)
            hint = f"there are {names}" if names else f"this fleet has no {kind} yet"
            raise UserError(f"no {kind} of this fleet is called {name!r}", hint=hint)
        table, out = _TABLES[kind]
        self._keep(kind, msgspec.structs.replace(old, out=True))
        self._ledger.write(f"UPDATE {table} SET {out} = 1 WHERE name = ?", old.name)
        what = "removed" if kind == "node" else "withdrawn"
        self._ledger.event(kind, old.name, what, reason, by)
        for tell in self.on_out:
            tell(kind, old.name)

    def _keep(self, kind: Kind, member: Member) -> None:
        self._members[kind, member.name.lower()] = member
