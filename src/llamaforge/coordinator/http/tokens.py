"""Join tokens: made for a while and a number of uses, spent with the certificate they give.

Only a digest of the secret is kept. A request that is sent again because its answer was lost is
answered again, and costs no second use; that gives nobody anything but the holder of its key.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

import msgspec

from llamaforge.coordinator.http.gate import Refused
from llamaforge.coordinator.ledger import Ledger
from llamaforge.errors import UserError
from llamaforge.identity.token import JoinToken
from llamaforge.wire.api import TokenWish

MOST_USES = 10_000
LONGEST = 30 * 86400.0
"""Seconds that a token can be good for."""
REMEMBERED = 90 * 86400.0
"""Seconds for which a token that is over is still told from one that never was."""
_ASK = "ask for a new one: llamaforge coordinator token, on the coordinator's machine"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token gives: the row of the ledger."""

    id: str
    digest: str
    role: str
    name: str
    """Whom it is for; empty: whoever has it."""
    uses: int
    """That are left."""
    expires: float
    by: str
    """Who made it."""


class Tokens:
    """The tokens of one fleet.

    Args:
        ledger: where they stand.
        authority: fingerprint of the fleet's authority, in hex.
        clock: Unix time in seconds.
    """

    def __init__(
        self, ledger: Ledger, authority: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger, self._authority, self._clock = ledger, authority, clock

    def make(self, wish: TokenWish, *, by: str) -> tuple[JoinToken, float]:
        """Makes a token.

        Returns:
            It, and until when it is good (Unix time in seconds).

        Raises:
            UserError: the wish makes no sense.
        """
        if not 1 <= wish.uses <= MOST_USES:
            raise UserError(f"a token for {wish.uses} uses", hint=f"1 to {MOST_USES}")
        if not 0 < wish.seconds <= LONGEST:
            raise UserError(f"a token for {wish.seconds:g} s", hint="at most 30 days: --valid 30d")
        if wish.role == "person" and not wish.name:
            raise UserError("a person's token without the person's name", hint="--person NAME")
        now = self._clock()
        token, expires = JoinToken.make(self._authority), now + wish.seconds
        self._ledger.write("DELETE FROM tokens WHERE expires < ?", now - REMEMBERED)
        self._ledger.write(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(token.id, token.digest, wish.role, wish.name, wish.uses, expires, by),
        )
        what = {"role": wish.role, "name": wish.name, "uses": wish.uses, "expires": expires}
        self._ledger.event("token", token.id, "made", "", by, **what)
        return token, expires

    def check(self, text: str, request: str) -> tuple[Grant, bool]:
        """Looks a token up.

        Args:
            text: what was sent.
            request: digest of the certificate request that came with it.

        Returns:
            What it gives, and whether this very request has been granted before.

        Raises:
            UserError: it is no token.
            Refused: it is wrong, for another fleet, expired or used up.
        """
        token = JoinToken.parse(text)
        if not hmac.compare_digest(token.authority, self._authority):
            raise Refused(401, "this token is for another fleet")
        rows = self._ledger.read("SELECT * FROM tokens WHERE id = ?", token.id)
        known = [Grant(**dict(zip(Grant.__struct_fields__, row))) for row in rows]  # noqa: B905
        digest = known[0].digest if known else ""
        if not hmac.compare_digest(token.digest, digest.ljust(64, "-")):
            raise Refused(401, "this fleet has no such token", hint=_ASK)
        grant = known[0]
        if self._granted(grant.id, request):
            return grant, True
        if self._clock() >= grant.expires:
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(grant.expires))
            raise Refused(401, f"this token expired at {when}", hint=_ASK)
        if grant.uses < 1:
            raise Refused(401, "this token is used up", hint=_ASK)
        return grant, False

    def spend(self, grant: Grant, name: str, request: str, epoch: str) -> None:
        """Counts one use, together with whatever is written before the next commit."""
        self._ledger.write("UPDATE tokens SET uses = uses - 1 WHERE id = ?", grant.id)
        fields = {"name": name, "request": request, "epoch": epoch}
        self._ledger.event("token", grant.id, "used", f"by {grant.role} {name}", "", **fields)

    def epoch_granted(self, grant: Grant, request: str) -> str:
        """The epoch that a request was given when it came first; empty when it never came."""
        for event in self._used(grant.id):
            if event.get("request") == request:
                return event.get("epoch", "")
        return ""

    def _granted(self, token: str, request: str) -> bool:
        return any(event.get("request") == request for event in self._used(token))

    def _used(self, token: str) -> list[dict[str, str]]:
        rows = self._ledger.read(
            "SELECT fields FROM events WHERE kind = 'token' AND subject = ? AND what = 'used'",
            token,
        )
        return [msgspec.json.decode(fields) for (fields,) in rows]
