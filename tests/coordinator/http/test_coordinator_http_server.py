"""The coordinator's HTTP face: who may do what, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from control import Control, control
from jobs import make_job
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.wire import api
from llamaforge.wire.messages import OLDEST, PROTOCOL, Hello, Refusal, Welcome
from llamaforge.worker.coordinator_http import CoordinatorHttp


class Http:
    """A running server and a client of it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        node: aiohttp.ClientSession,
        control: Control,
        root: Path,
    ) -> None:
        self.session, self.node, self.control, self.root = session, node, control, root
        self.store = control.store

    async def ask(self, method: str, path: str, body: object = None, **more: object) -> int:
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        async with self.session.request(method, path, data=data, **more) as answer:  # type: ignore[arg-type]
            self.text = await answer.text()
            return answer.status

    def submission(self, *entries: Entry, name: str = "job") -> api.Submission:
        return api.Submission(
            job=msgspec.structs.replace(make_job(), id=name),
            manifest=Manifest(entries=entries),
            output_dir=str(self.root / name),
            checkpoint_dir=str(self.root / name / "checkpoints"),
        )


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with control(tmp_path) as there, there.local.open() as session:
        identity = there.identity("node", "a")
        async with there.endpoint(identity).open() as node:
            yield Http(session, node, there, tmp_path)


def entry(data: bytes, path: str = "data/train.jsonl") -> Entry:
    return Entry(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


async def test_health_is_open(http: Http) -> None:
    assert await http.ask("GET", api.HEALTH) == 200


async def test_blobs_come_and_go_verified(http: Http) -> None:
    wanted = entry(b"rows" * 1000)
    assert await http.ask("POST", api.MISSING, Manifest(entries=(wanted,))) == 200
    assert msgspec.json.decode(http.text, type=api.MissingBlobs).entries == (wanted,)
    assert await http.ask("PUT", f"{api.BLOBS}/{wanted.sha256}", b"else") == 422
    assert await http.ask("PUT", f"{api.BLOBS}/{wanted.sha256}", b"rows" * 1000) == 201
    assert await http.ask("GET", f"{api.BLOBS}/{wanted.sha256}") == 200
    assert http.text == "rows" * 1000
    assert await http.ask("GET", f"{api.BLOBS}/{'1' * 64}") == 422


@pytest.mark.parametrize("name", ["..%2F..%2Fsecret", "%2Fetc%2Fpasswd", "x%00y", "A" * 64])
async def test_a_blob_has_no_other_name_than_a_digest(http: Http, name: str) -> None:
    (http.root / "secret").write_text("secret")
    http.store.folder("blobs/..")
    from yarl import URL

    url = URL(f"{api.BLOBS}/{name}", encoded=True)
    assert await http.ask("GET", url) == 422  # type: ignore[arg-type]
    assert "not a SHA-256" in http.text


async def test_a_compressed_file_beside_a_blob_is_not_sent_for_it(http: Http) -> None:
    original = http.root / "tokenizer.json"
    original.write_bytes(b"new")
    (http.root / "tokenizer.json.gz").write_bytes(gzip.compress(b"old"))
    http.store.add_file(original)
    manifest, there = Manifest(entries=(entry(b"new"),)), BlobStore(http.root / "there")
    async with CoordinatorHttp(lambda: http.control.local) as worker:
        assert await worker.fetch_missing(manifest, there) == manifest.entries
    assert there.has(entry(b"new").sha256)


async def test_a_job_without_its_blobs_is_refused(http: Http) -> None:
    assert await http.ask("POST", api.JOBS, http.submission(entry(b"absent"))) == 422
    assert "has not arrived" in http.text
    assert not (http.root / "job").exists()


async def test_a_manifest_or_job_that_climbs_is_refused(http: Http) -> None:
    http.store.add_bytes(b"rows")
    evil = http.submission(entry(b"rows", "../../evil"))
    assert await http.ask("POST", api.JOBS, evil) == 422
    assert await http.ask("POST", api.JOBS, http.submission(name="../evil")) == 400


@pytest.mark.parametrize("path", ["..%2Fevil", "a%2F..%2F..%2Fevil", "%2Fetc%2Fevil"])
async def test_an_artifact_that_climbs_is_refused(http: Http, path: str) -> None:
    assert await http.ask("POST", api.JOBS, http.submission()) == 200
    from yarl import URL

    url = URL(f"{api.JOBS}/job/artifacts/{path}", encoded=True)
    assert await http.ask("PUT", url, b"data") == 422  # type: ignore[arg-type]
    assert list(http.root.rglob("evil")) == []


async def test_two_jobs_never_share_a_folder(http: Http) -> None:
    first = http.submission(name="first")
    assert await http.ask("POST", api.JOBS, first) == 200
    second = http.submission(name="second")
    for option in ("output_dir", "checkpoint_dir"):
        (http.root / "link").unlink(missing_ok=True)
        (http.root / "link").symlink_to(getattr(first, option))
        clash = msgspec.structs.replace(second, **{option: str(http.root / "link")})
        assert await http.ask("POST", api.JOBS, clash) == 400
        assert f"--{option.replace('_', '-')}" in http.text
    relative = msgspec.structs.replace(second, output_dir="somewhere")
    assert await http.ask("POST", api.JOBS, relative) == 400
    assert await http.ask("POST", api.JOBS, second) == 200


async def test_unknown_jobs_are_named(http: Http) -> None:
    assert await http.ask("GET", f"{api.JOBS}/nothing/stream") == 404
    trouble = msgspec.json.decode(http.text, type=api.Trouble)
    assert "'nothing' is not known" in trouble.message


async def test_nonsense_is_refused(http: Http) -> None:
    assert await http.ask("POST", api.JOBS, b"{") == 400
    assert await http.ask("POST", f"{api.JOBS}/x/stop", b"[]") == 400


async def test_files_of_a_generation_that_is_over_are_refused(http: Http) -> None:
    """A node that was cut off may still train and send."""
    assert await http.ask("POST", api.JOBS, http.submission()) == 200
    stale = {api.GENERATION: "1"}
    begin = f"{api.JOBS}/job/checkpoints/step-00000002"
    assert await http.ask("POST", begin, headers=stale) == 404
    assert "generation 1 of job 'job' is over" in http.text
    assert await http.ask("PUT", f"{api.JOBS}/job/artifacts/x", b"x", headers=stale) == 404
    assert not (http.root / "job" / "x").exists()
    assert list((http.root / "job").rglob("*.incoming")) == []


async def test_a_queued_job_can_be_stopped(http: Http) -> None:
    await http.ask("POST", api.JOBS, http.submission())
    assert await http.ask("POST", f"{api.JOBS}/job/stop", api.StopRequest(reason="no")) == 200
    assert await http.ask("GET", f"{api.JOBS}/job/stream") == 200
    assert '"ended"' in http.text
    assert await http.ask("GET", f"{api.JOBS}/job/stream?position={10**12}") == 200
    assert await http.ask("PUT", f"{api.JOBS}/job/artifacts/a", b"late") == 404


def hello(**changes: object) -> Hello:
    base = Hello(node="a", identity="i", session="s", cores=1, memory=1)
    return msgspec.structs.replace(base, **changes)


async def greet(http: Http, said: Hello) -> tuple[aiohttp.ClientWebSocketResponse, object]:
    socket = await http.node.ws_connect(api.WORKERS)
    await socket.send_str(msgspec.json.encode(said).decode())
    answer = await socket.receive_str(timeout=5)
    return socket, msgspec.json.decode(answer, type=Welcome | Refusal)


@pytest.mark.parametrize(
    ("protocol", "oldest", "who"),
    [(PROTOCOL + 2, PROTOCOL + 1, "coordinator"), (OLDEST - 1, OLDEST - 1, "worker")],
)
async def test_a_protocol_that_is_too_far_is_refused_with_the_side_to_update(
    http: Http, protocol: int, oldest: int, who: str
) -> None:
    said = hello(protocol=protocol, oldest=oldest, versions={"llamaforge": "9.9"})
    _, answer = await greet(http, said)
    assert isinstance(answer, Refusal)
    assert f"protocol {protocol} (LlamaForge 9.9)" in answer.reason
    assert f"coordinator {PROTOCOL}" in answer.reason
    assert f"update the {who}" in answer.reason


async def test_a_neighbouring_protocol_is_welcome(http: Http) -> None:
    _, answer = await greet(http, hello(protocol=PROTOCOL + 1, oldest=PROTOCOL))
    assert isinstance(answer, Welcome)


@pytest.mark.parametrize("name", ["b", "A", "", "two\nlines", "\x1b[31mred", "x" * 300])
async def test_a_worker_is_the_node_of_its_certificate(http: Http, name: str) -> None:
    _, answer = await greet(http, hello(node=name))
    assert isinstance(answer, Refusal)
    assert answer.reason.isprintable()
    assert len(answer.reason) < 200


async def test_a_frame_of_endless_depth_costs_its_connection_only(http: Http) -> None:
    socket, _ = await greet(http, hello())
    await socket.send_bytes(b'{"number":1,"body":' + b"[" * 200_000)
    closed = await socket.receive(timeout=5)
    assert closed.type is aiohttp.WSMsgType.CLOSE
    assert closed.data == aiohttp.WSCloseCode.OK  # not "internal error"
    _, again = await greet(http, hello())
    assert isinstance(again, Welcome)


async def test_two_workers_of_one_name_are_told_apart(http: Http) -> None:
    _, first = await greet(http, hello())
    assert isinstance(first, Welcome)
    assert not first.resumed
    _, second = await greet(http, hello(identity="another", session="t"))
    assert isinstance(second, Refusal)
    assert "--name" in second.reason


async def test_a_session_is_resumed_over_a_new_websocket(http: Http) -> None:
    socket, first = await greet(http, hello())
    assert isinstance(first, Welcome)
    await socket.close()
    _, second = await greet(http, hello(coordinator=first.coordinator))
    assert second == Welcome(coordinator="me", process="process", resumed=True, received=0)
    _, third = await greet(http, hello(coordinator=first.coordinator, session="new process"))
    assert third == Welcome(coordinator="me", process="process", resumed=False, received=0)
