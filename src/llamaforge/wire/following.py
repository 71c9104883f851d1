"""What a coordinator tells as it happens: a job's updates, the fleet's events; each once, in order.

A lost connection is dialled again, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing

import msgspec

from llamaforge.errors import FleetError
from llamaforge.wire import api
from llamaforge.wire.away import AWAY, Away
from llamaforge.wire.connection import Connection, job_path
from llamaforge.wire.updates import Ended, Numbered


async def job(connection: Connection, job_id: str) -> api.JobStatus:
    """One job. Raises FleetError when it is not known or the coordinator stays away."""
    url = job_path(job_id)
    said = await connection.through_restarts(lambda: connection.request("GET", url))
    return msgspec.json.decode(said, type=api.JobStatus)


async def stream(
    connection: Connection, job_id: str, position: int, kinds: Iterable[str]
) -> AsyncGenerator[Numbered, None]:
    """A job's updates from a number on; see `FleetClient.stream`."""
    away, ended = connection.absence(), False
    while True:
        try:
            async for numbered in _listen(connection, job_id, position, kinds, away):
                position = numbered.number + 1
                ended = isinstance(numbered.update, Ended)
                yield numbered
            if ended:  # a job that is resumed goes on after its end, and so does its stream
                return
        except AWAY as why:
            if ended:
                return
            await away.wait(why)
        else:
            if await _is_over(connection, job_id, position):
                return
            await away.pause()


async def history(connection: Connection, job_id: str) -> AsyncGenerator[Numbered, None]:
    """The updates that a job has at the time of the call, from the first one on."""
    length = (await job(connection, job_id)).updates
    if length == 0:
        return
    async with aclosing(stream(connection, job_id, 0, ())) as updates:
        async for numbered in updates:
            yield numbered
            if numbered.number >= length - 1:
                return


async def events(
    connection: Connection, after: int, *, follow: bool, kind: str, subject: str
) -> AsyncGenerator[api.Event, None]:
    """What has happened in the fleet; see `FleetClient.events`."""
    away = connection.absence()
    while True:
        asked, before = {"kind": kind, "subject": subject, "after": str(after)}, after
        asked["follow"] = "1" if follow else ""
        try:
            async for line in connection.lines(
                api.EVENTS, {key: text for key, text in asked.items() if text}, away
            ):
                event = msgspec.json.decode(line, type=api.Event)
                after = event.number
                yield event
            if not follow and after == before:  # an answer holds a bounded number of them
                return
        except AWAY as why:
            await away.wait(why)
        else:
            if follow:
                await away.pause()


async def _is_over(connection: Connection, job_id: str, position: int) -> bool:
    """Whether a job has ended with no update from this number on."""
    try:
        found = await job(connection, job_id)
    except FleetError:
        return False  # the coordinator is just leaving, or the stream's next answer tells
    return found.state.final and found.updates <= position


async def _listen(
    connection: Connection, job_id: str, position: int, kinds: Iterable[str], away: Away
) -> AsyncIterator[Numbered]:
    """The stream over one connection, until it closes."""
    params = {"position": str(position)}
    if wanted := ",".join(kinds):
        params["kinds"] = wanted
    async for line in connection.lines(f"{job_path(job_id)}/stream", params, away):
        yield msgspec.json.decode(line, type=Numbered)
