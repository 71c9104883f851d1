"""The coordinator's HTTP face: the gate before every route, errors in words, and no answer to a
change that is not durable yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.blob_keeper import BlobKeeper
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.http.answers import of_error
from llamaforge.coordinator.http.file_routes import FileRoutes
from llamaforge.coordinator.http.fleet_routes import FleetRoutes
from llamaforge.coordinator.http.gate import Gate
from llamaforge.coordinator.http.job_routes import JobRoutes
from llamaforge.coordinator.http.joining import Joining
from llamaforge.wire import api

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers clients and workers.

    Args:
        board: the jobs and nodes.
        store: the coordinator's blobs.
        gate: decides who may ask what.
        joining: lets nodes and people join.
        status: tells what `GET /v1/status` answers.
        keeper: makes room for blobs.
    """

    def __init__(
        self,
        board: Board,
        store: BlobStore,
        gate: Gate,
        joining: Joining,
        status: Callable[[], api.Status],
        keeper: BlobKeeper | None = None,
    ) -> None:
        self._board, self._gate = board, gate
        self._routes = [
            *FleetRoutes(board, joining, status).routes(),
            *JobRoutes(board, store).routes(),
            *FileRoutes(board, store, keeper).routes(),
            *joining.routes(),
        ]

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=api.BODY_LIMIT, middlewares=[self._guard])
        app.add_routes(self._routes)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses whoever may not; turns our errors into answers that a person can read."""
        try:
            with self._gate.inside(request):
                answer = await handler(request)
                if request.method not in ("GET", "HEAD"):
                    await self._board.durable()
                return answer
        except web.HTTPException:
            raise
        except Exception as why:  # noqa: BLE001 - a bug is raised again
            return of_error(request, why)
