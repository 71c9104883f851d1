"""HTTP answers: JSON bodies, trouble in words for people, and the sizes that are taken."""

from __future__ import annotations

import logging

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from llamaforge.coordinator.http.gate import Refused
from llamaforge.errors import FleetError, IntegrityError, LlamaForgeError, UserError
from llamaforge.wire import api

MOST_BYTES = 1 << 40
"""Bytes in the largest file that is taken: no model's shard comes near."""

log = logging.getLogger("llamaforge.coordinator")


def as_json(body: msgspec.Struct, status: int = 200) -> web.Response:
    """An answer with a JSON body."""
    data = msgspec.json.encode(body)
    return web.Response(body=data, status=status, content_type="application/json")


def trouble(status: int, why: LlamaForgeError) -> web.Response:
    """An answer that says what is wrong."""
    user_error = isinstance(why, UserError)
    return as_json(api.Trouble(message=why.message, hint=why.hint, user_error=user_error), status)


def of_error(request: web.Request, why: Exception) -> web.Response:
    """The answer to a request that has failed.

    Raises:
        Exception: `why`, where it is a bug or the client has left.
    """
    if isinstance(why, Refused):
        answer = trouble(why.status, why)
        answer.headers.update(why.header)
        return answer
    if isinstance(why, UserError):
        return trouble(400, why)
    if isinstance(why, IntegrityError):
        return trouble(422, why)
    if isinstance(why, LlamaForgeError):
        return trouble(404, why)
    if isinstance(why, msgspec.MsgspecError | RecursionError | OverflowError | UnicodeError):
        return trouble(400, FleetError(f"the request can't be understood: {why}"))
    if isinstance(why, HttpProcessingError | web.RequestPayloadError):
        return trouble(400, FleetError(f"the request's body can't be read: {why}"))
    if isinstance(why, OSError) and not isinstance(why, ConnectionError):
        log.warning("%s %s: %s", request.method, request.path, why)
        return trouble(507, FleetError(f"the coordinator can't keep it: {why}"))
    raise why


def size_of(request: web.Request) -> int:
    """How long the body says it is. Raises IntegrityError when it doesn't, or is absurd."""
    return check_size(request.content_length)


def check_size(size: int | None) -> int:
    """Passes a file's size. Raises IntegrityError when there is none, or it is absurd."""
    if size is None or size > MOST_BYTES:
        raise IntegrityError(f"a file needs a Content-Length of at most {MOST_BYTES} bytes")
    return size
