"""How many workers one coordinator carries: heartbeats, lost workers, a long queue, memory.

    .venv/bin/python bench/scale.py [--workers 2000] [--jobs 1000] [--seconds 30]

One real coordinator, and workers that say what real ones say and do nothing else: each has its own
certificate, its own TLS connection and its own session, and sends a ping every 4 s, as a worker
does. They live in two child processes. Measured are

- `p99_ms`: a worker's ping until the coordinator's pong is back, while the whole queue waits;
  `p99_submitting_ms` is the same while the jobs come in, `p99_joining_ms` while the workers do;
- `detect_s`: a worker falls silent as in a power cut (its connection stays open, nobody answers)
  until an event says so; the longest of several. `detect_closed_s`: its process dies;
- `submit_s`: all jobs, one request after the other, each durable before it is answered;
- `mb_per_worker`: resident memory of the coordinator with all workers less that with none.

- `blips`: connections that broke, and came back, because a process had to wait for a processor for
  longer than a heartbeat; `load` is the machine's at the end.

Everything shares this machine's processors, the workers too, so times are upper bounds. The peer is
what dstack's server is said to carry: 1,000 instances at 8 MB each. It is published, not measured
here; its guide (https://dstack.ai/docs/guides/server-deployment) names 150 active instances for one
replica, and says that more work. The last line is one JSON object. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.identity import folder, request
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.wishes import Wishes
from llamaforge.wire import api, fleet_file
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import FRAME_LIMIT, FromCoordinator, FromWorker, Hello, Welcome
from llamaforge.wire.session import Session

CREWS = 2
"""Processes that the workers live in."""
AT_ONCE = 32
"""Workers of one crew that dial at the same time."""
PING_SECONDS = 4.0
"""As in `worker.link`."""
SILENT = 5
"""Workers that fall silent, one after the other."""
WANTED, SPARE = "wanted", 10
"""The label that the queued jobs want, and how many busy workers have it: so they all wait."""
PEER_MB = 8.0


# ── a crew of workers, in a process of its own ────────────────────────────────────────────────


class Worker:
    """One connection that behaves like a waiting worker's."""

    def __init__(self, name: str, crew: Crew, *, wanted: bool) -> None:
        self.name, self._crew, self._wanted = name, crew, wanted
        self.mute = False
        """Whether it has fallen silent."""
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self._session: Session[FromWorker, FromCoordinator] = Session(FromCoordinator)
        self._fleet = self._process = ""

    async def run(self) -> None:
        """Dials, answers, and dials again where the connection broke, as a worker does."""
        while not self.mute:
            try:
                await self._dial()
            except (aiohttp.ClientError, ConnectionError, TypeError) as why:
                if not self.mute:
                    self._crew.broken[type(why).__name__] += 1
                await asyncio.sleep(1)

    async def _dial(self) -> None:
        crew = self._crew
        target = Endpoint(host=crew.host, port=crew.port, identity=str(crew.homes / self.name))
        async with contextlib.AsyncExitStack() as stack:
            async with crew.dialling:
                http = await stack.enter_async_context(target.open())
                self.socket = await stack.enter_async_context(
                    http.ws_connect(api.WORKERS, autoping=False, max_msg_size=FRAME_LIMIT)
                )
                received = await self._greet(self.socket)
            crew.there += 1
            try:
                await self._serve(self.socket, received)
            finally:
                crew.there -= 1

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> int:
        hello = Hello(
            node=self.name,
            identity=self.name,
            session=self.name,
            coordinator=self._fleet,
            process=self._process,
            received=self._session.received,
            cores=2,
            memory=8 << 30,
            versions={"llamaforge": "0", "python": "3", "torch": ""},
            address="10.0.0.1",
            labels=(WANTED,) if self._wanted else (),
            busy="something else" if self._wanted else "",
        )
        await socket.send_str(msgspec.json.encode(hello).decode())
        welcome = msgspec.json.decode(await socket.receive_str(), type=Welcome)
        if not welcome.resumed:
            self._session = Session(FromCoordinator)
        self._fleet, self._process = welcome.coordinator, welcome.process
        return welcome.received

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse, received: int) -> None:
        tasks = [
            asyncio.ensure_future(self._session.write(socket, received)),
            asyncio.ensure_future(self._ping(socket)),
        ]
        try:
            async for frame in socket:
                if self.mute:
                    await asyncio.Event().wait()
                if frame.type is aiohttp.WSMsgType.PING:
                    await socket.pong(frame.data)
                elif frame.type is aiohttp.WSMsgType.PONG:
                    self._crew.times.append(time.monotonic() - float(frame.data))
                else:
                    self._session.take(frame.data)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task
        raise ConnectionError("the coordinator closed the connection")

    async def _ping(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await asyncio.sleep(PING_SECONDS * (hash(self.name) % 1000) / 1000)
        while not self.mute:
            await socket.ping(str(time.monotonic()).encode())
            await asyncio.sleep(PING_SECONDS)


class Crew:
    """Some of the workers; told what to do by lines on standard input, answers with lines."""

    def __init__(self, homes: Path, host: str, port: int) -> None:
        self.homes, self.host, self.port = homes, host, port
        self.dialling = asyncio.Semaphore(AT_ONCE)
        self.there = 0
        self.times: list[float] = []
        """Seconds from ping to pong since they were asked for last."""
        self.broken: Counter[str] = Counter()
        """Connections that broke, by the error."""

    async def run(self, names: list[str]) -> None:
        """Serves until standard input ends."""
        workers = {n: Worker(n, self, wanted=int(n[1:]) < SPARE) for n in names}
        tasks = [asyncio.ensure_future(worker.run()) for worker in workers.values()]
        for task in tasks:
            task.add_done_callback(self._ended)
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
        )
        while line := await orders.readline():
            word, _, name = line.decode().strip().partition(" ")
            if word == "mute":
                workers[name].mute = True
            elif word == "kill":
                workers[name].mute, socket = True, workers[name].socket
                assert socket is not None
                socket._response.connection.transport.abort()  # type: ignore[union-attr]
            times, self.times = self.times, []
            said = {"there": self.there, "times": times, "broken": self.broken}
            print(json.dumps(said), flush=True)
        os._exit(0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if why := task.exception():
            print(f"a worker ended: {why!r}", file=sys.stderr, flush=True)


# ── the measurement ───────────────────────────────────────────────────────────────────────────


class Bench:
    """The coordinator, the crews, and what is asked of them."""

    def __init__(self, root: Path, workers: int) -> None:
        self.root, self.names = root, [f"n{number}" for number in range(workers)]
        self._crews: list[subprocess.Popen[bytes]] = []
        self._coordinator: subprocess.Popen[bytes] | None = None
        self.file = root / "state" / fleet_file.NAME

    @property
    def pid(self) -> int:
        """The coordinator's."""
        assert self._coordinator is not None
        return self._coordinator.pid

    def start_coordinator(self) -> None:
        """Starts it, and returns when it listens."""
        folders = ["--state-dir", self.root / "state", "--cache-dir", self.root / "cache"]
        command = ["coordinator", "run", "--host", "127.0.0.1", "--port", "0", *folders]
        with (self.root / "coordinator.log").open("wb") as log:
            self._coordinator = subprocess.Popen(
                [sys.executable, "-m", "llamaforge", *map(str, command)], stdout=log, stderr=log
            )
        until = time.monotonic() + 30
        while fleet_file.find(self.file) is None:
            if time.monotonic() > until or self._coordinator.poll() is not None:
                raise SystemExit((self.root / "coordinator.log").read_text())
            time.sleep(0.05)

    def http(self) -> aiohttp.ClientSession:
        """A session of this user's, over the unix socket."""
        fleet = fleet_file.read(self.file)
        return Endpoint.of(fleet).open(timeout=aiohttp.ClientTimeout(total=120))

    async def join(self) -> None:
        """A certificate for each worker; all have the same key, since that changes nothing here."""
        made = request.make()
        limit = asyncio.Semaphore(8)
        async with self.http() as http:

            async def one(name: str) -> None:
                wish = api.JoinRequest(token="", name=name, request=made.request)
                async with limit, http.post(api.JOIN, data=msgspec.json.encode(wish)) as answer:
                    answer.raise_for_status()
                    got = msgspec.json.decode(await answer.read(), type=api.Certificate)
                home = self.root / "homes" / name
                home.mkdir(parents=True)
                folder.identity_file(home).write_text(made.key + got.certificate)
                folder.authority_file(home).write_text(got.authority)

            await asyncio.gather(*(one(name) for name in self.names))

    def start_crews(self) -> None:
        """Starts the workers; they dial at once."""
        fleet = fleet_file.read(self.file)
        where = ["--homes", str(self.root / "homes"), "--port", str(fleet.port)]
        for number in range(CREWS):
            names = ",".join(self.names[number::CREWS])
            command = [sys.executable, __file__, "--crew", names, *where]
            self._crews.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )

    def order(self, word: str, name: str = "") -> list[dict[str, Any]]:
        """Tells the crew of a worker, or all, to do something; what they answer."""
        crews = [self._crews[self.names.index(name) % CREWS]] if name else self._crews
        said = []
        for crew in crews:
            assert crew.stdin is not None
            assert crew.stdout is not None
            crew.stdin.write(f"{word} {name}\n".encode())
            crew.stdin.flush()
            said.append(json.loads(crew.stdout.readline()))
        return said

    def wait_connected(self) -> float:
        """Seconds until all workers are connected."""
        began = time.monotonic()
        while (there := sum(one["there"] for one in self.order("look"))) < len(self.names):
            if time.monotonic() > began + 300:
                raise SystemExit(f"only {there} workers could connect")
            time.sleep(0.5)
        return time.monotonic() - began

    def times(self) -> list[float]:
        """Seconds from ping to pong since this was asked last."""
        return [seconds for one in self.order("look") for seconds in one["times"]]

    async def submit(self, count: int) -> float:
        """Queues jobs that wait; seconds that it takes."""
        wishes = Wishes(labels=(WANTED,), max_nodes=1)
        began = time.monotonic()
        async with self.http() as http:
            for number in range(count):
                script = ScriptJob(id=f"job-{number}", command=("train.py",), wishes=wishes)
                submission = api.Submission(
                    script=script, manifest=Manifest(), wishes=wishes, key=str(number)
                )
                body = msgspec.json.encode(submission)
                async with http.post(api.JOBS, data=body) as answer:
                    if answer.status != 200:
                        raise SystemExit(await answer.text())
        return time.monotonic() - began

    async def ask(self, path: str) -> float:
        """Seconds for one answer."""
        async with self.http() as http:
            began = time.monotonic()
            async with http.get(path) as answer:
                answer.raise_for_status()
                await answer.read()
            return time.monotonic() - began

    async def noticed(self, order: str, name: str) -> float:
        """Seconds from what happens to a worker to the event that tells of it."""
        params = {"kind": "node", "subject": name, "follow": "1"}
        async with self.http() as http, http.get(api.EVENTS, params=params) as answer:
            began = time.monotonic()
            self.order(order, name)
            async for line in answer.content:
                if line.strip() and json.loads(line)["what"] in ("disconnected", "lost"):
                    return time.monotonic() - began
        raise SystemExit("the coordinator went away")

    def close(self) -> None:
        """Ends all processes."""
        for crew in self._crews:
            crew.kill()
            crew.wait()
        if self._coordinator is not None:
            self._coordinator.terminate()
            try:
                self._coordinator.wait(20)
            except subprocess.TimeoutExpired:
                self._coordinator.kill()
                self._coordinator.wait()


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def p99(seconds: list[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return round(1000 * statistics.quantiles(seconds, n=100)[98], 1) if len(seconds) > 1 else 0.0


@contextlib.contextmanager
def bench(workers: int) -> Iterator[Bench]:
    """A bench whose processes and files are gone at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if workers + 200 > hard:
        raise SystemExit(f"{workers} workers need more open files than {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, workers + 200), hard))
    with tempfile.TemporaryDirectory(prefix="llamaforge-scale-") as root:
        made = Bench(Path(root), workers)
        try:
            yield made
        finally:
            made.close()


async def measure(bench: Bench, jobs: int, seconds: float) -> dict[str, Any]:
    """All figures, in the order in which a fleet grows."""
    bench.start_coordinator()
    await bench.join()
    empty = resident(bench.pid)
    bench.start_crews()
    found: dict[str, Any] = {"workers": len(bench.names), "jobs": jobs}
    print("workers dial", flush=True)
    found["connect_s"] = round(bench.wait_connected(), 1)
    found["p99_joining_ms"] = p99(bench.times())
    time.sleep(2 * PING_SECONDS)
    bench.times()
    full = resident(bench.pid)
    found["mb_empty"], found["mb_full"] = round(empty, 1), round(full, 1)
    found["mb_per_worker"] = round((full - empty) / len(bench.names), 4)
    print(found, flush=True)
    found["submit_s"] = round(await bench.submit(jobs), 2)
    found["p99_submitting_ms"] = p99(bench.times())
    print(f"{jobs} jobs took {found['submit_s']} s", flush=True)
    found["mb_with_jobs"] = round(resident(bench.pid), 1)
    used, began = processor(bench.pid), time.monotonic()
    time.sleep(seconds)
    steady = bench.times()
    found["cpu_share"] = round((processor(bench.pid) - used) / (time.monotonic() - began), 3)
    found["pings"], found["p99_ms"] = len(steady), p99(steady)
    found["median_ms"] = round(1000 * statistics.median(steady), 2)
    found["status_s"] = round(await bench.ask(api.STATUS), 3)
    silent = [await bench.noticed("mute", name) for name in bench.names[-SILENT:]]
    found["detect_s"] = round(max(silent), 2)
    found["detect_closed_s"] = round(await bench.noticed("kill", bench.names[-SILENT - 1]), 3)
    found["p99_losing_ms"] = p99(bench.times())
    found["blips"] = sum(sum(one["broken"].values()) for one in bench.order("look"))
    found["load"] = round(os.getloadavg()[0], 1)
    return found


def main() -> None:
    """Measures all and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--crew", help=argparse.SUPPRESS)
    parser.add_argument("--homes", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crew:
        crew = Crew(Path(options.homes), "127.0.0.1", options.port)
        asyncio.run(crew.run(options.crew.split(",")))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    with bench(options.workers) as made:
        detail = asyncio.run(measure(made, options.jobs, options.seconds))
    ours = detail["mb_per_worker"]
    said = {"name": "scale", "ours": ours, "peer": PEER_MB, "ratio": round(ours / PEER_MB, 4)}
    print(json.dumps({**said, "unit": "MB resident per worker", "detail": detail}))


if __name__ == "__main__":
    main()
