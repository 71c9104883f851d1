"""A real coordinator, told and asked nonsense at every door while it leads a job.

It answers, never with a mistake of its own; the job goes on, and so does the next one.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from signal import Signals
from typing import Any

import msgspec
import pytest
from intruder import WAYS, Evil, Fleet, get
from nonsense import BODIES, FROM_WORKER, HELLO, JOB, spoil

from fleet_rig import Rig, until_metric
from llamaforge.bundle.manifest import Manifest
from llamaforge.spec import ranks
from llamaforge.spec.states import JobState
from llamaforge.spec.wishes import Wishes
from llamaforge.wire import api
from llamaforge.wire.messages import (
    CannotStart,
    FromWorker,
    RankExited,
    RankLog,
    RankSaid,
    Uploaded,
)
from llamaforge.wire.updates import Ended

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "G\x01T", "get")
SEGMENTS = (
    *("..", ".", "%2e%2e", "%2E%2e%2Fetc%2Fpasswd", "%00", "%ff%fe", "%ed%a0%80", "a%0ab", ""),
    *("0" * 64, "F" * 64, "a" * 300, "a" * 7000, "chance", "honest", "step-00000001", "accept"),
    *("%F0%9F%92%A3", "{x}", "*", "?", "%", "%zz", ";x=1", "files", "artifacts", "stream"),
)
ROOTS = (
    *(api.STATUS, api.MISSING, api.BLOBS, api.JOBS, api.WORKERS, api.NODES, api.EVENTS, api.JOIN),
    *(api.TOKENS, api.PEOPLE, api.RENEW, api.HEALTH, "/", "", "/v1", "*"),
    *(f"{api.JOBS}/chance/{what}" for what in ("stream", "files", "artifacts", "checkpoints")),
)
QUERIES = (
    *("", "?position=-1", "?position=%D9%A3", f"?position={'9' * 15}", "?kinds=,,%00", "?all=1"),
    *("?after=" + "9" * 15, "?kind=%ff&subject=%ed%a0%80", "?state=nothing", "?follow=1&after=0"),
    *("?reason=" + "x" * 3000, "?a=b" * 50),
)
HEADERS = (
    *("Range: bytes=-1", "Range: bytes=5-2", "Range: bytes=0-9999999999999999999", "Range: x=1-"),
    *("Content-Range: bytes 0-0/0", "Content-Range: bytes 5-9/99999999999999999", "Expect: xyz"),
    *("If-None-Match: \xff", "Accept-Encoding: gzip;q=nan", "Content-Type: multipart/x; a=\"",
      "Content-Encoding: gzip", "Content-Encoding: nothing", "Upgrade: websocket",
      "Sec-WebSocket-Key: x", "LlamaForge-Generation: -1", "LlamaForge-Generation: 9" * 3,
      "Cookie: a=b; c", "X: " + "y" * 7000, "Connection: upgrade", "Host: [", ": x", "x"),
)  # fmt: skip


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    rig = Rig(tmp_path_factory.mktemp("fleet"))
    made = Fleet(rig)
    try:
        made.begin()
        yield made
    finally:
        rig.close()


def next_job(fleet: Fleet) -> None:
    """The coordinator is well, and the next job runs as if nothing had happened."""
    fleet.check()
    ended, _ = asyncio.run(fleet.rig.run(f"after-{secrets.token_hex(3)}", "steps=2"))
    assert ended.state is JobState.DONE, ended.reason
    fleet.check()


# ── HTTP ──────────────────────────────────────────────────────────────────────────────────────


def line(chance: random.Random, method: str = "") -> str:
    path = chance.choice(ROOTS)
    for _ in range(chance.randrange(4)):
        path += "/" + chance.choice(SEGMENTS)
    return f"{method or chance.choice(METHODS)} {path}{chance.choice(QUERIES)} HTTP/1.1\r\nHost: x"


def ask(fleet: Fleet, way: str, head: str, body: bytes | None, *more: str) -> int:
    """One whole request."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    lines = [head, "Connection: close", *length, *more, "", ""]
    return fleet.say(way, "\r\n".join(lines).encode("latin-1", "replace") + (body or b""))


@pytest.mark.parametrize("way", WAYS)
def test_any_request_has_an_answer(fleet: Fleet, way: str) -> None:
    chance = random.Random(f"request {way}")
    for _ in range(150):
        more = chance.sample(HEADERS, chance.choice((0, 0, 1, 2)))
        body = chance.choice((None, None, b"", b"{}", b"\xff" * 100, b"[" * 9000, b"1e999"))
        head = line(chance)
        status = ask(fleet, way, head, body, *more)
        assert 100 <= status < 500 or status == 501, (status, head, more)
    fleet.check()


@pytest.mark.parametrize("way", WAYS)
def test_any_body_has_an_answer(fleet: Fleet, way: str) -> None:
    chance = random.Random(f"body {way}")
    for path, bodies in BODIES.items():
        for _ in range(30):
            body = spoil(chance.choice(bodies), chance)
            status = ask(fleet, way, f"POST {path} HTTP/1.1\r\nHost: x", body)
            assert 200 <= status < 500, (status, path, body[:2000])
    fleet.check()


LIES = (
    "Content-Length: 10\r\n\r\nshort",
    "Content-Length: 99999999999999999999\r\n\r\nx",
    "Content-Length: -1\r\n\r\n",
    "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    "X: y",
)


@pytest.mark.parametrize("way", WAYS)
def test_lies_about_the_length_harm_only_the_liar(fleet: Fleet, way: str) -> None:
    paths = (
        *(api.JOBS, api.JOIN, f"{api.BLOBS}/{'0' * 64}"),
        *(f"{api.JOBS}/chance/artifacts/a", f"{api.JOBS}/chance/checkpoints/step-00000001/a"),
    )
    for path in paths:
        method = "POST" if path in (api.JOBS, api.JOIN) else "PUT"
        for lie in LIES:
            data = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lie}".encode()
            assert fleet.say(way, data, whole=False) not in (500, 502, 503), (path, lie)
    fleet.check()


def test_after_all_requests_a_job_still_runs(fleet: Fleet) -> None:
    async def stop_all() -> None:
        async with fleet.rig.client() as client:
            for job in (await client.status()).jobs:
                if not job.state.final:
                    await client.stop(job.id, "enough", now=True)

    asyncio.run(stop_all())
    next_job(fleet)


# ── frames ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(2))
def test_a_node_that_says_anything_disturbs_no_job_of_others(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)

    async def attack() -> Ended:
        name = f"{JOB}-{seed}"
        async with fleet.rig.client() as client:
            await fleet.rig.submit(client, name, "hang pace=0.02")
            updates = client.follow(name)
            await until_metric(updates)
            async with Evil(fleet) as evil:
                for _ in range(400):
                    body = spoil(chance.choice(FROM_WORKER), chance)
                    await evil.say(body.replace(b'"victim"', f'"{name}"'.encode()))
                for message in hostile(name):
                    await evil.say(msgspec.json.encode(message))
                await evil.say(b'{"type":"busy","reason":"done"}')
            status = await client.job(name)
            assert (status.state, status.generation) == (JobState.RUNNING, 1), status.reason
            await client.stop(name, "enough")
            *_, ended = [update async for update in updates]
        assert "evil" not in json.dumps(ended.proof)
        return ended

    ended = asyncio.run(attack())
    assert ended.state is JobState.STOPPED, ended.reason
    fleet.check()


def hostile(job: str) -> list[FromWorker]:
    """What would end, or forge, the job of others."""
    of: dict[str, Any] = {"job_id": job, "generation": 1}
    return [
        RankExited(**of, rank=0, code=0),
        RankExited(**of, rank=1, signal=9),
        RankSaid(**of, rank=0, report=ranks.Failed(kind="X", message="evil was here")),
        RankSaid(**of, rank=0, report=ranks.Metric(line={"step": 10**6, "loss": 0})),
        RankSaid(**of, rank=0, report=ranks.Finished(artifacts="/x", proof={"by": "evil"})),
        RankLog(job_id=job, rank=0, line="evil was here"),
        CannotStart(**of, kind="DataError", message="evil was here"),
        Uploaded(**of, what="artifacts"),
        Uploaded(**of, what="checkpoint", name="../evil", error="evil was here"),
    ]


def test_what_a_foreign_node_says_stands_nowhere(fleet: Fleet) -> None:
    async def attack() -> list[Any]:
        async with fleet.rig.client() as client:
            await fleet.rig.submit(client, "forged", "hang pace=0.02")
            updates = client.follow("forged")
            await until_metric(updates)
            async with Evil(fleet) as evil:
                for message in hostile("forged"):
                    await evil.say(msgspec.json.encode(message))
                for path in ("artifacts/evil", "checkpoints/step-00000009/evil"):
                    url = f"{api.JOBS}/forged/{path}"
                    async with evil.session.put(url, data=b"evil") as answer:
                        assert answer.status == 403, await answer.text()
                begin = f"{api.JOBS}/forged/checkpoints/step-00000009"
                async with evil.session.post(begin, data=b"") as answer:
                    assert answer.status == 403
            await client.stop("forged", "enough")
            return [update async for update in updates]

    told = asyncio.run(attack())
    assert told[-1].state is JobState.STOPPED
    assert "evil" not in repr(told)
    kept = list((fleet.rig.root / "runs" / "forged").rglob("*"))
    assert not [
        path for path in kept if "evil" in path.name or path.name.startswith("step-00000009")
    ]
    assert not [path for path in kept if path.is_file() and b"evil was here" in path.read_bytes()]


def test_greetings_of_every_kind(fleet: Fleet) -> None:
    chance = random.Random(1)

    async def greet() -> None:
        async with fleet.endpoint("node").open() as session:
            for _ in range(120):
                async with session.ws_connect(api.WORKERS) as socket:
                    said = spoil(HELLO, chance)
                    if chance.random() < 0.8:
                        await socket.send_str(said.decode("utf-8", "replace"))
                    else:
                        await socket.send_bytes(said)
                    await socket.receive(timeout=15)

    asyncio.run(greet())
    fleet.check()


def test_a_member_that_says_anything_costs_its_own_job_only(fleet: Fleet) -> None:
    """Its own job may fail of it; the coordinator may not, nor when it is started again."""
    chance = random.Random(2)

    async def attack(number: int) -> None:
        wishes = Wishes(labels=("evil",))
        job, _, _ = fleet.rig.job(f"own-{number}", "steps=2")
        body = api.Submission(job=job, manifest=Manifest(), wishes=wishes)
        async with fleet.local.open() as local, Evil(fleet, busy="", labels=("evil",)) as evil:
            async with local.post(api.JOBS, data=msgspec.json.encode(body)) as answer:
                assert answer.status == 200, await answer.text()
            told = await evil.hear()
            while told is None or told.get("type") != "preflight":
                told = await evil.hear()
            of = {"job_id": job.id, "generation": told["generation"]}
            await evil.say(json.dumps({"type": "preflight_report", **of}).encode())
            while told is None or told.get("type") != "start_ranks":
                told = await evil.hear()
            for _ in range(100):
                said = spoil(chance.choice(FROM_WORKER[6:]), chance)
                await evil.say(said.replace(b'"victim"', f'"{job.id}"'.encode()))
            async with local.get(api.STATUS) as answer:
                assert answer.status == 200
            stop = msgspec.json.encode(api.StopRequest(reason="enough", now=True))
            async with local.post(f"{api.JOBS}/{job.id}/stop", data=stop) as answer:
                assert answer.status in (200, 404)

    for number in range(4):
        asyncio.run(attack(number))
        fleet.check()
    port = fleet.port
    fleet.rig.end("coordinator", Signals.SIGKILL)
    fleet.rig.coordinator(port=port)
    asyncio.run(fleet.rig.waiting("honest"))
    next_job(fleet)


def test_nothing_was_written_outside(fleet: Fleet) -> None:
    """Runs last: what all of the above has left."""
    assert not Path("/tmp/evil").exists()
    assert fleet.say("local", get(api.STATUS)) == 200
