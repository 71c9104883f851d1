"""Joining a fleet from outside: check whose token it is, and only then show it.

1. Without trust, ask what answers there for its authority's certificate.
2. Compare its fingerprint with the one in the token. A stranger learns nothing but that somebody
   asked.
3. Connect anew and trust that authority alone; send the token and a request for a certificate.
"""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path

import aiohttp
import msgspec

from llamaforge.errors import FleetError, UserError
from llamaforge.identity import contexts, folder, trouble
from llamaforge.identity.fingerprint import fingerprint
from llamaforge.identity.folder import About
from llamaforge.identity.request import KeyRequest
from llamaforge.identity.token import JoinToken
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.refused import check

SECONDS = aiohttp.ClientTimeout(total=30.0, sock_connect=10.0)
TRIES = 3
"""How often a request whose answer was lost is sent: the same request again costs no second use."""


async def join(
    host: str, port: int, token: JoinToken, name: str, key: KeyRequest
) -> api.Certificate:
    """Joins with a token.

    Args:
        host: where the coordinator is dialled.
        port: its control port.
        token: what was given out.
        name: the node's name; a person has the one that the token was made for.
        key: the private key, which stays here, and the request for its certificate.

    Returns:
        The certificate and the authority's, as `save` wants them.

    Raises:
        UserError: the token is refused, or the name.
        FleetError: nothing answers there, or something else.
    """
    place = Endpoint(host=host, port=port)
    authority = await _authority(place)
    found = fingerprint(authority)
    if not hmac.compare_digest(found, token.authority):
        raise UserError(
            f"this token is not from the coordinator at {host}:{port}: the authority there has "
            f"the fingerprint {found[:16]}…, the token's has {token.authority[:16]}…",
            hint="is the address right? A new token: llamaforge coordinator token, on its machine",
        )
    wish = api.JoinRequest(token=token.text, name=name, request=key.request)
    return await _ask(place, wish, authority)


async def join_here(socket: str, name: str, key: KeyRequest) -> api.Certificate:
    """Joins through the unix socket of a coordinator on this machine, which asks for no token.

    Raises:
        UserError: the name is refused.
        FleetError: nothing answers there, or this user may not.
    """
    wish = api.JoinRequest(token="", name=name, request=key.request)
    return await _ask(Endpoint(socket=socket), wish, "")


async def renew(endpoint: Endpoint, key: KeyRequest) -> api.Certificate:
    """Gets another certificate for the one that the endpoint shows.

    Raises:
        FleetError: refused, or nothing answers.
    """
    try:
        async with endpoint.open(timeout=SECONDS) as http:
            return await _post(http, api.RENEW, api.RenewRequest(request=key.request))
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as why:
        raise _gone(endpoint, why) from why


def save(home: Path, key: KeyRequest, signed: api.Certificate, about: About | None = None) -> None:
    """Writes what `join` or `renew` has returned as an identity. Raises OSError."""
    folder.save(
        home,
        key=key.key,
        certificate=signed.certificate,
        authority=signed.authority,
        about=about,
    )


async def _authority(place: Endpoint) -> str:
    """What answers there says that its authority is; nothing is believed yet."""
    try:
        async with (
            place.open(timeout=SECONDS, context=contexts.stranger()) as http,
            http.get(api.JOIN) as answer,
        ):
            await check(answer)
            signed = msgspec.json.decode(await answer.read(), type=api.Certificate)
            fingerprint(signed.authority)
            return signed.authority
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as why:
        raise _gone(place, why) from why
    except (msgspec.MsgspecError, ValueError) as why:
        raise FleetError(f"what answers at {place.url} is not a coordinator") from why


async def _ask(place: Endpoint, wish: api.JoinRequest, authority: str) -> api.Certificate:
    for attempt in range(TRIES):
        try:
            context = contexts.newcomer(authority) if authority else None
            async with place.open(timeout=SECONDS, context=context) as http:
                return await _post(http, api.JOIN, wish)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as why:
            if attempt == TRIES - 1 or trouble.explain(why) or isinstance(why, FileNotFoundError):
                raise _gone(place, why) from why
            await asyncio.sleep(0.2 * (attempt + 1))
    raise AssertionError("not reached")


async def _post(http: aiohttp.ClientSession, path: str, body: msgspec.Struct) -> api.Certificate:
    async with http.post(path, data=msgspec.json.encode(body)) as answer:
        await check(answer)
        return msgspec.json.decode(await answer.read(), type=api.Certificate)


def _gone(place: Endpoint, why: BaseException) -> FleetError:
    said = trouble.explain(why) or str(why) or type(why).__name__
    return FleetError(
        f"the coordinator at {place.url} can't be reached: {said}",
        hint="is it running there, and does a firewall let its port through? "
        "systemctl status llamaforge-coordinator",
    )
