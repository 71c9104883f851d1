"""What a coordinator says when it refuses a request, as an error for a person."""

from __future__ import annotations

import aiohttp
import msgspec

from llamaforge.errors import FleetError, LlamaForgeError, UserError
from llamaforge.wire.api import Trouble

REFUSAL = "LlamaForge-Refusal"
"""Header with the reason of a refusal: a websocket's client sees headers, and no body."""
MOST_BYTES = 1 << 16
"""Bytes of an answer that are read to find out what the trouble is."""


async def check(answer: aiohttp.ClientResponse) -> None:
    """Passes a good answer.

    Raises:
        UserError: refused, and the person who asked can fix it.
        FleetError: refused for another reason.
    """
    if answer.status < 400:
        return
    body = await answer.content.read(MOST_BYTES)
    try:
        trouble = msgspec.json.decode(body, type=Trouble)
    except msgspec.MsgspecError:
        text = body.decode(errors="replace").strip()
        trouble = Trouble(message=f"the coordinator answered {answer.status}: {text}")
    kind: type[LlamaForgeError] = UserError if trouble.user_error else FleetError
    raise kind(trouble.message, hint=trouble.hint)
