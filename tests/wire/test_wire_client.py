"""The client against a coordinator that misbehaves: drops connections, refuses, goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from jobs import make_job
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError, IntegrityError, UserError
from llamaforge.spec.states import JobState
from llamaforge.wire import api, away, connection, fleet_file
from llamaforge.wire.carrying import Progress
from llamaforge.wire.client import FleetClient
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.updates import Ended, JobUpdate, MetricLine, Numbered

UPDATES: list[JobUpdate] = [
    *(MetricLine(line={"step": step}) for step in range(1, 6)),
    Ended(state=JobState.DONE, reason="", output_dir="/x"),
]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[dict[tuple[str, str], Handler]], Awaitable[FleetClient]]


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a coordinator with the given routes; returns a client of it."""
    monkeypatch.setattr(away, "REDIAL_SECONDS", 0)
    runners: list[web.AppRunner] = []

    async def start(routes: dict[tuple[str, str], Handler]) -> FleetClient:
        app = web.Application()
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        path = str(tmp_path / f"{len(runners)}.sock")
        await web.UnixSite(runner, path).start()
        return FleetClient(FleetFile(host="127.0.0.1", port=1, socket=path))

    yield start
    for runner in runners:
        await runner.cleanup()


def answer(body: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status)


async def test_follow_goes_on_where_the_connection_broke(serve: Serve) -> None:
    asked: list[int] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        position = int(request.query["position"])
        asked.append(position)
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(position, min(position + 2, len(UPDATES))):
            line = msgspec.json.encode(Numbered(number=number, update=UPDATES[number]))
            await response.write(b"\n" + line + b"\n")
        if len(asked) % 2:
            await response.write(b'{"number":99,"upd')  # torn in the middle of a line
            assert request.transport is not None
            request.transport.abort()
        return response

    async with await serve({("GET", f"{api.JOBS}/j/stream"): stream}) as fleet:
        assert [update async for update in fleet.follow("j")] == UPDATES
    assert asked == [0, 2, 4]


async def test_follow_from_now(serve: Serve) -> None:
    asked: list[str] = []

    async def job(_: web.Request) -> web.Response:
        status = {"since": 0.0, "submitted": 0.0, "output_dir": "/x", "total_steps": 5}
        return answer(api.JobStatus(id="j", state=JobState.RUNNING, updates=5, **status))

    async def stream(request: web.Request) -> web.Response:
        asked.append(request.query["position"])
        return answer(Numbered(number=5, update=UPDATES[5]))

    async def with_newline(request: web.Request) -> web.Response:
        response = await stream(request)
        response.body = bytes(response.body) + b"\n"  # type: ignore[arg-type]
        return response

    routes = {("GET", f"{api.JOBS}/j"): job, ("GET", f"{api.JOBS}/j/stream"): with_newline}
    async with await serve(routes) as fleet:  # type: ignore[arg-type]
        assert [u async for u in fleet.follow("j", from_start=False)] == UPDATES[5:]
    assert asked == ["5"]


async def test_a_stream_that_begins_after_the_end_is_over(serve: Serve) -> None:
    async def job(_: web.Request) -> web.Response:
        status = {"since": 0.0, "submitted": 0.0, "output_dir": "/x", "total_steps": 5}
        return answer(api.JobStatus(id="j", state=JobState.DONE, updates=6, **status))

    async def stream(_: web.Request) -> web.Response:
        return web.Response(body=b"")

    routes = {("GET", f"{api.JOBS}/j"): job, ("GET", f"{api.JOBS}/j/stream"): stream}
    async with await serve(routes) as fleet:  # type: ignore[arg-type]
        assert [u async for u in fleet.stream("j", 6)] == []


async def test_a_coordinator_that_was_never_there_is_not_waited_for(tmp_path: Path) -> None:
    fleet = FleetClient(FleetFile(host="127.0.0.1", port=1, socket=str(tmp_path / "none")))
    async with fleet:
        with pytest.raises(FleetError, match=r"127\.0\.0\.1:1 can't be reached"):
            await anext(fleet.follow("j"))
        with pytest.raises(FleetError, match="can't be reached"):
            await fleet.status()


async def test_a_coordinator_that_stays_away_is_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status(_: web.Request) -> web.Response:
        said = answer(api.Status(coordinator="c", version="0", pid=1, started=0.0))
        said.force_close()
        return said

    told: list[str] = []
    async with await serve({("GET", api.STATUS): status}) as fleet:
        fleet.tell = told.append
        await fleet.status()
        Path(fleet.fleet.socket).unlink()
        monkeypatch.setattr(connection, "AWAY_SECONDS", 0.05)
        with pytest.raises(FleetError, match="can't be reached"):
            await fleet.jobs()
    assert told == ["the coordinator is away; waiting"]


@pytest.mark.parametrize(("user_error", "kind"), [(True, UserError), (False, FleetError)])
async def test_a_refusal_is_told_in_the_coordinators_words(
    serve: Serve, user_error: bool, kind: type[Exception]
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return answer(api.Trouble(message="no", hint="try else", user_error=user_error), 400)

    async with await serve({("GET", api.STATUS): refuse}) as fleet:
        with pytest.raises(kind, match="no") as error:
            await fleet.status()
    assert error.value.hint == "try else"  # type: ignore[attr-defined]


async def test_something_else_that_answers_is_told(serve: Serve) -> None:
    async def proxy(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>Bad Gateway</html>")

    async with await serve({("GET", api.STATUS): proxy}) as fleet:
        with pytest.raises(FleetError, match="answered 502: <html>"):
            await fleet.status()


async def test_only_missing_blobs_are_sent_and_progress_is_told(
    serve: Serve, tmp_path: Path
) -> None:
    store = BlobStore(tmp_path)
    entries = tuple(
        Entry(path=name, sha256=store.add_bytes(data)[0], size=len(data))
        for name, data in {"a": b"x" * 3_000_000, "b": b"y" * 10}.items()
    )
    received: dict[str, int] = {}

    async def missing(_: web.Request) -> web.Response:
        return answer(api.MissingBlobs(entries=entries[:1]))

    async def put(request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        received[request.match_info["sha"]] = size
        assert request.content_length == size
        return web.Response(status=201)

    async def submit(request: web.Request) -> web.Response:
        submission = msgspec.json.decode(await request.read(), type=api.Submission)
        assert Path(submission.output_dir).is_absolute()
        return answer(api.Submitted(job_id=submission.job.id))

    told: list[Progress] = []
    routes = {
        ("POST", api.MISSING): missing,
        ("PUT", api.BLOBS + "/{sha}"): put,
        ("POST", api.JOBS): submit,
    }
    async with await serve(routes) as fleet:
        job_id = await fleet.submit(
            make_job(),
            Manifest(entries=entries),
            store,
            output_dir=Path("runs/x"),
            checkpoint_dir=Path("runs/x/checkpoints"),
            on_progress=told.append,
        )
    assert job_id == "test-job"
    assert received == {entries[0].sha256: 3_000_000}
    assert [p.sent for p in told] == sorted(p.sent for p in told)
    assert told[-1] == Progress(path="a", sent=3_000_000, total=3_000_000)


async def test_a_file_that_changed_is_noticed_before_it_is_sent(
    serve: Serve, tmp_path: Path
) -> None:
    original = tmp_path / "train.jsonl"
    original.write_bytes(b"old")
    store = BlobStore(tmp_path / "store")
    sha256, size = store.add_file(original)
    manifest = Manifest(entries=(Entry(path="data/train.jsonl", sha256=sha256, size=size),))
    original.write_bytes(b"newer")

    async def missing(_: web.Request) -> web.Response:
        return answer(api.MissingBlobs(entries=manifest.entries))

    folders = {"output_dir": tmp_path, "checkpoint_dir": tmp_path}
    async with await serve({("POST", api.MISSING): missing}) as fleet:
        with pytest.raises(IntegrityError, match="has changed"):
            await fleet.submit(make_job(), manifest, store, **folders)


def test_no_fleet_is_said_with_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("LLAMAFORGE_FLEET", raising=False)
    monkeypatch.setattr(fleet_file, "SERVICE", tmp_path / "service.json")
    with pytest.raises(FleetError, match="no fleet runs here") as error:
        FleetClient.open()
    assert "llamaforge up" in error.value.hint
