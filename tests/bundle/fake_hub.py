"""A Hugging Face hub on loopback: enough of its HTTP interface for a download, and its refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

COMMIT = "1234567890abcdef1234567890abcdef12345678"


class FakeHub(ThreadingHTTPServer):
    """Serves the files of `models`; answers `refusals` with a status and an error code."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Mapping[str, bytes]] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.refuse_only_files = False
        """The hub tells everybody about a gated model; only its files are refused."""
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        api = path.startswith("/api/models/")
        owner, model, *rest = path.removeprefix("/api/models/").strip("/").split("/")
        name = f"{owner}/{model}"
        if name in self.server.refusals and not (api and self.server.refuse_only_files):
            status, code = self.server.refusals[name]
            self._answer(status, b"{}", {"X-Error-Code": code} if code else {})
        elif name not in self.server.models:
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif api and rest[:1] == ["tree"]:
            self._json([self._entry(*item) for item in self.server.models[name].items()])
        elif api and rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif api:
            self._json({"id": name, "sha": COMMIT, "siblings": []})
        else:
            self._file(self.server.models[name]["/".join(rest[2:])])

    def _entry(self, path: str, data: bytes) -> dict[str, object]:
        return {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, data: bytes) -> None:
        headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        self._answer(200, data, headers)

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Runs a hub until the end of the block."""
    hub = FakeHub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
