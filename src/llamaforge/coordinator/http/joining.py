"""Joining the fleet and leaving it: tokens in, certificates out; over HTTP.

Whoever joins asks first, unencumbered by certificates, which authority this fleet has, compares it
with the fingerprint in its token, and sends the token only then (`wire.join`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
from aiohttp import web

from llamaforge.coordinator.http.gate import CALLER, Caller, Refused, address_of
from llamaforge.coordinator.http.members import Kind, Members
from llamaforge.coordinator.http.throttle import Throttle
from llamaforge.coordinator.http.tokens import Tokens
from llamaforge.coordinator.ledger import Ledger
from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.identity.authority import Authority, new_epoch
from llamaforge.identity.names import fits, node_host, person_host
from llamaforge.wire import api

MOST_REFUSALS = 500
"""Events about refused tokens that one coordinator process writes: guessing shall not fill the
ledger."""


class Joining:
    """Answers those who join, renew, and say who may.

    Args:
        authority: signs certificates.
        ledger: where tokens stand.
        members: who belongs to the fleet.
        address: HOST:PORT at which other machines reach this coordinator.
        connected: whether a node of that name is there now.
    """

    def __init__(
        self,
        authority: Authority,
        ledger: Ledger,
        members: Members,
        *,
        address: Callable[[], str],
        connected: Callable[[str], bool],
    ) -> None:
        self._authority, self._ledger, self._members = authority, ledger, members
        self._address, self._connected = address, connected
        self._tokens = Tokens(ledger, authority.fingerprint)
        self._throttle = Throttle()
        self._refusals = 0

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.get(api.JOIN, self._get_authority),
            web.post(api.JOIN, self._join),
            web.post(api.RENEW, self._renew),
            web.post(api.TOKENS, self._token),
            web.get(api.PEOPLE, self._people),
            web.delete(f"{api.PEOPLE}/{{name}}", self._withdraw),
        ]

    def remove_node(self, name: str, reason: str, by: str) -> None:
        """Removes a node: it is cut off at once, and refused until it joins with a new token.

        Raises:
            UserError: no node is called so.
        """
        self._members.send_away("node", name, reason, by=by)

    # ── joining ───────────────────────────────────────────────────────────────────────────────

    async def _get_authority(self, _: web.Request) -> web.Response:
        return _json(api.Certificate(certificate="", authority=self._authority.certificate))

    async def _join(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=api.JoinRequest)
        caller: Caller = request[CALLER]
        if caller.kind == "local" and not wish.token:
            signed = self._from_next_door(wish, str(caller))
        else:
            signed = self._with_token(wish, address_of(request))
        await self._ledger.settled()
        return _json(signed)

    def _from_next_door(self, wish: api.JoinRequest, by: str) -> api.Certificate:
        """A worker on this machine, of somebody who could make tokens anyhow."""
        known = self._members.get("node", wish.name)
        if known is not None and known.out:
            raise Refused(
                403,
                f"node {known.name} was removed from this fleet",
                hint="let it join again with a token: llamaforge worker join HOST:PORT",
            )
        return self._admit("node", self._node_name(wish.name), wish.request, by=by)

    def _with_token(self, wish: api.JoinRequest, address: str) -> api.Certificate:
        if seconds := self._throttle.wait(address):
            raise Refused(429, f"too many wrong tokens from {address}: wait {seconds:.0f} s")
        digest = hashlib.sha256(wish.request.encode()).hexdigest()
        try:
            grant, again = self._tokens.check(wish.token, digest)
        except LlamaForgeError as why:
            self._throttle.wrong(address)
            self._note_refusal(why, wish, address)
            raise
        kind: Kind = "person" if grant.role == "person" else "node"
        if kind == "node" and grant.name and grant.name != wish.name:
            raise Refused(403, f"this token is for node {grant.name!r}, not for {wish.name!r}")
        name = grant.name if kind == "person" else self._node_name(wish.name, again=again)
        if again:
            epoch = self._tokens.epoch_granted(grant, digest)
            if why_not := self._members.refusal(kind, name, epoch):
                raise Refused(403, why_not, hint="ask for a new token")
            return self._sign(kind, name, wish.request, epoch)
        epoch = new_epoch()
        signed = self._sign(kind, name, wish.request, epoch)
        self._tokens.spend(grant, name, digest, epoch)
        self._members.admit(kind, name, epoch, by=f"token {grant.id} of {grant.by}")
        return signed

    def _admit(self, kind: Kind, name: str, request: str, *, by: str) -> api.Certificate:
        epoch = new_epoch()
        signed = self._sign(kind, name, request, epoch)
        self._members.admit(kind, name, epoch, by=by)
        return signed

    def _sign(self, kind: Kind, name: str, request: str, epoch: str) -> api.Certificate:
        host = node_host(name) if kind == "node" else person_host(name)
        issued = self._authority.issue(host, request, epoch=epoch, server=kind == "node")
        return api.Certificate(
            certificate=issued.certificate, authority=self._authority.certificate, name=name
        )

    def _node_name(self, name: str, *, again: bool = False) -> str:
        if not fits(name):
            raise UserError(
                f"a node can't be called {name[:80]!r}",
                hint="letters, digits, dots, dashes and underscores, at most 63, a letter or digit "
                "at both ends; choose another one with --name",
            )
        known = self._members.get("node", name)
        if known is not None and known.name != name:
            raise UserError(
                f"there is a node {known.name!r} already, which differs from {name!r} only in "
                "capitals",
                hint="choose another name with --name",
            )
        if not again and self._connected(name):
            raise UserError(
                f"another worker is called {name!r}, and is connected now",
                hint="choose a name with --name, or, if it is the same machine, try again when the "
                "old worker has been gone for a moment",
            )
        return name

    def _note_refusal(self, why: LlamaForgeError, wish: api.JoinRequest, address: str) -> None:
        if self._refusals < MOST_REFUSALS:
            self._refusals += 1
            subject = wish.token.split(".")[1] if wish.token.count(".") == 3 else ""
            known = subject if len(subject) == 12 and subject.isalnum() else "?"
            fields = {"address": address, "name": wish.name[:80]}
            self._ledger.event("token", known, "refused", why.message, "", **fields)

    # ── renewing ──────────────────────────────────────────────────────────────────────────────

    async def _renew(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=api.RenewRequest)
        caller: Caller = request[CALLER]
        if caller.kind not in ("node", "person"):
            raise Refused(403, "only a certificate can be renewed, and none came")
        kind: Kind = "person" if caller.kind == "person" else "node"
        signed = self._sign(kind, caller.name, wish.request, caller.epoch)
        self._ledger.event(kind, caller.name, "certificate renewed", "", str(caller))
        await self._ledger.settled()
        return _json(signed)

    # ── who may ───────────────────────────────────────────────────────────────────────────────

    async def _token(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=api.TokenWish)
        if wish.name and not fits(wish.name):
            raise UserError(f"nobody can be called {wish.name[:80]!r}", hint="letters and digits")
        token, expires = self._tokens.make(wish, by=str(request[CALLER]))
        await self._ledger.settled()
        return _json(
            api.Token(token=token.text, address=self._address(), expires=expires, uses=wish.uses)
        )

    async def _people(self, _: web.Request) -> web.Response:
        return _json(api.People(people=self._members.people()))

    async def _withdraw(self, request: web.Request) -> web.Response:
        reason = request.query.get("reason", "")[:1000]
        name, by = request.match_info["name"], str(request[CALLER])
        self._members.send_away("person", name, reason, by=by)
        await self._ledger.settled()
        return _json(api.People(people=self._members.people()))


def _json(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
