"""A client's requests to one coordinator, and what becomes of them while it is away.

What may be asked twice goes on through a restart (`through_restarts`, `lines`); the rest (`ask`)
is refused at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from llamaforge.errors import FleetError
from llamaforge.wire import api
from llamaforge.wire.away import AWAY, Away
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.refused import check

ASK_SECONDS = 30.0
"""How long a small request may take."""
AWAY_SECONDS = 180.0
"""How long a coordinator that has gone away is dialled: its host may be starting again."""
PRIVATE_AWAY_SECONDS = 15.0
"""The same for a fleet that this process keeps itself."""

Answer = TypeVar("Answer")
Own = TypeVar("Own", bound="Connection")


class Connection:
    """The way to one coordinator; an async context manager."""

    def __init__(self, fleet: FleetFile) -> None:
        self.fleet = fleet
        self.keeper: Callable[[], Iterable[str]] | None = None
        """Where the fleet is this process's own: starts what has ended again, returns its names."""
        self.tell: Callable[[str], None] = lambda _: None
        """Is told when the coordinator is away for a while, and when it is back."""
        self._met = False
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self: Own) -> Own:
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        self._http = Endpoint.of(self.fleet).open(timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    @property
    def http(self) -> aiohttp.ClientSession:
        """What requests are made with; open inside `async with` alone."""
        assert self._http is not None, "use it in an `async with`"
        return self._http

    async def ask(
        self,
        method: str,
        url: str,
        body: msgspec.Struct | None = None,
        *,
        answer: type[Answer],
    ) -> Answer:
        """One small request with JSON both ways, which is not repeated.

        Raises:
            FleetError: the coordinator is gone or refuses.
            UserError: what was asked can't be done as written.
        """
        try:
            return msgspec.json.decode(await self.request(method, url, body), type=answer)
        except AWAY as why:
            raise self._gone(why) from why

    async def request(
        self,
        method: str,
        url: str,
        body: msgspec.Struct | None = None,
        params: dict[str, str] | None = None,
    ) -> bytes:
        """One small request; a lost connection raises as it is, a refusal as in `ask`."""
        data = None if body is None else msgspec.json.encode(body)
        async with self.http.request(method, url, data=data, params=params) as response:
            await self.check(response)
            return await response.read()

    async def lines(self, url: str, params: dict[str, str], away: Away) -> AsyncIterator[bytes]:
        """The lines of an answer that may last, over one connection.

        Args:
            url: what to ask for.
            params: its query.
            away: told when the coordinator has answered.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=api.STREAM_SILENCE)
        async with self.http.get(url, params=params, timeout=timeout) as answer:
            await self.check(answer)
            away.reached()
            async for line in _lines(answer.content):
                yield line

    async def check(self, answer: aiohttp.ClientResponse) -> None:
        """Passes a good answer; one that is just starting counts as away."""
        if answer.status == 503 and self._met:
            raise ConnectionError("it is starting or stopping")
        await check(answer)
        self._met = True

    async def through_restarts(self, action: Callable[[], Awaitable[Answer]]) -> Answer:
        """Does it again while the coordinator is away. Only for what may be done twice.

        Raises:
            FleetError: it stays away; what `action` raises otherwise.
        """
        away = self.absence()
        while True:
            try:
                result = await action()
            except AWAY as why:
                await away.wait(why)
            else:
                away.reached()
                return result

    def absence(self) -> Away:
        """Counts for one request how long the coordinator is away."""
        seconds = AWAY_SECONDS if self.keeper is None else PRIVATE_AWAY_SECONDS
        # Whom nobody has reached yet is not away: the address or the fleet may be wrong.
        return Away(lambda: seconds if self._met else 0.0, self.tell, self._gone)

    def _gone(self, why: BaseException) -> FleetError:
        said = str(why) or type(why).__name__
        return FleetError(
            f"the coordinator at {self.fleet.host}:{self.fleet.port} can't be reached: {said}",
            hint="look at its log, or start a fleet: llamaforge up",
        )


def job_path(job_id: str) -> str:
    """Where a coordinator answers about one job."""
    return f"{api.JOBS}/{quote(job_id, safe='')}"


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of an answer, however long; empty ones only keep the connection alive."""
    rest = b""
    async for data in content.iter_any():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line:
                yield line
