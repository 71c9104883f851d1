"""What a person asks a coordinator about who belongs to its fleet."""

from __future__ import annotations

import asyncio
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from llamaforge.errors import FleetError
from llamaforge.identity import trouble
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.refused import check

SECONDS = aiohttp.ClientTimeout(total=30.0)

Answer = TypeVar("Answer")


async def make_token(coordinator: Endpoint, wish: api.TokenWish) -> api.Token:
    """Makes a join token. Raises UserError or FleetError."""
    return await _ask(coordinator, "POST", api.TOKENS, api.Token, msgspec.json.encode(wish))


async def people(coordinator: Endpoint) -> tuple[api.Person, ...]:
    """Everybody who has a certificate, or had one. Raises FleetError."""
    return (await _ask(coordinator, "GET", api.PEOPLE, api.People)).people


async def withdraw(coordinator: Endpoint, name: str, reason: str) -> tuple[api.Person, ...]:
    """Withdraws a person's certificate at once; everybody as they are then. Raises UserError."""
    path = f"{api.PEOPLE}/{quote(name, safe='')}?reason={quote(reason)}"
    return (await _ask(coordinator, "DELETE", path, api.People)).people


async def _ask(
    coordinator: Endpoint, method: str, path: str, kind: type[Answer], data: bytes | None = None
) -> Answer:
    try:
        async with (
            coordinator.open(timeout=SECONDS) as http,
            http.request(method, path, data=data) as answer,
        ):
            await check(answer)
            return msgspec.json.decode(await answer.read(), type=kind)
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as why:
        said = trouble.explain(why) or str(why) or type(why).__name__
        raise FleetError(f"the coordinator at {coordinator.url} can't be reached: {said}") from why
