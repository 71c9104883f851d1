"""A big bundle on its way to several nodes at once: shared between them, against plain copies.

    sudo .venv/bin/python bench/bundle.py [--nodes 3] [--gigabytes 1] [--rate 1gbit] [--turns 3]

Machines of the lab (see lab/README.md) hang on links of one rate each. One runs a real coordinator
that has the blob; the others fetch it with a worker's own transfers and peer port: mutual TLS,
pieces made durable one by one, SHA-256 checked. The peer is a plain copy to each: a bare TCP
connection per node, sent by sendfile(2), written to a file, synced, not encrypted and not checked;
nothing that copies to each can be quicker on these links. Both take turns; the times are from the
word "go" until the last node has the whole file durable, and medians.

`sent_mb` is what left the coordinator's link. All machines share this box's processors, so what is
bound by them here would not be on real ones: `cpu_s` is what all of them together used in one turn
(without the kernel's work for the network), `cores` what there is, and `line_s` the time that one
copy and N copies need at the link's rate. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHON = "/opt/llamaforge/current/bin/python3"
HERE = "/srv/llamaforge/bench/bundle.py"
WORK = Path("/var/bundle")
PORT, PLAIN_PORT, PEER_PORT = 29400, 29401, 29500
CHUNK = 1 << 20


# ── the sides, each in a machine of its own ───────────────────────────────────────────────────


def prepare(names: list[str], size: int) -> None:
    """In the coordinator's machine: the blob, and an identity for every node."""
    from llamaforge.bundle.store import BlobStore

    data = WORK / "model.bin"
    with data.open("wb") as file:
        for _ in range(size // CHUNK):
            file.write(os.urandom(CHUNK))
    sha256, _ = BlobStore(WORK / "cache" / "blobs").add_file(data)
    asyncio.run(_join(names))
    print(json.dumps({"sha256": sha256, "size": size}), flush=True)


async def _join(names: list[str]) -> None:
    import msgspec

    from llamaforge.identity import folder, request
    from llamaforge.wire import api, fleet_file
    from llamaforge.wire.endpoint import Endpoint

    fleet = fleet_file.read(WORK / "state" / fleet_file.NAME)
    async with Endpoint.of(fleet).open() as http:
        for name in names:
            made = request.make()
            wish = api.JoinRequest(token="", name=name, request=made.request)
            async with http.post(api.JOIN, data=msgspec.json.encode(wish)) as answer:
                answer.raise_for_status()
                got = msgspec.json.decode(await answer.read(), type=api.Certificate)
            folder.save(
                WORK / "homes" / name,
                key=made.key,
                certificate=got.certificate,
                authority=got.authority,
            )


def fetch(told: dict[str, Any]) -> None:
    """In a node: ours. Waits for a line on standard input before it begins."""
    asyncio.run(_fetch(told))


async def _fetch(told: dict[str, Any]) -> None:
    from llamaforge.bundle.manifest import Entry, Manifest
    from llamaforge.bundle.store import BlobStore
    from llamaforge.spec.fleet import WorkerSettings
    from llamaforge.wire.endpoint import Endpoint
    from llamaforge.wire.messages import Peer
    from llamaforge.worker.coordinator_http import CoordinatorHttp, Neighbours
    from llamaforge.worker.peer.port import Figures, PeerPort
    from llamaforge.worker.peer.secure import SecurePort
    from llamaforge.worker.peer.shelf import Shelf

    home, cache = WORK / "home", WORK / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    store = BlobStore(cache / "blobs")
    shelf = Shelf(store)
    peers = tuple(
        Peer(node=name, address=address, port=PEER_PORT) for name, address in told["peers"]
    )
    names = {peer.node for peer in peers}
    settings = WorkerSettings(
        name=told["name"],
        state_dir=str(WORK),
        cache_dir=str(cache),
        peer_host="::",
        peer_port=PEER_PORT,
    )
    figures = Figures(connected=True, busy="", ranks=0, jobs=0)
    secure = SecurePort(lambda: home, names.__contains__, shelf)
    port = PeerPort(settings, lambda: figures, lambda: told["coordinator"], secure)
    await port.start()
    near = Neighbours(node=told["name"], peers=peers, identity=str(home))
    there = Endpoint(host=told["coordinator"], port=PORT, identity=str(home))
    entry = Entry(path="model.bin", sha256=told["sha256"], size=told["size"])
    async with CoordinatorHttp(lambda: there, neighbours=near, shelf=shelf) as http:
        await _go()
        await http.fetch_missing(Manifest(entries=(entry,)), store)
        print("done", flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # the others may still want pieces
    await port.stop()


async def _go() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def receive(told: dict[str, Any]) -> None:
    """In a node: the plain copy."""
    target = WORK / "copy.bin"
    target.unlink(missing_ok=True)
    print("ready", flush=True)
    sys.stdin.readline()
    buffer = memoryview(bytearray(CHUNK))
    there = socket.create_connection((told["coordinator"], PLAIN_PORT))
    with there, target.open("wb", buffering=0) as file:
        while count := there.recv_into(buffer):
            file.write(buffer[:count])
        os.fsync(file.fileno())
    assert target.stat().st_size == told["size"]
    print("done", flush=True)
    sys.stdin.readline()
    target.unlink()


def send() -> None:
    """In the coordinator's machine: the plain copy's sender, for ever."""
    door = socket.create_server(("0.0.0.0", PLAIN_PORT))
    print("ready", flush=True)

    def one(guest: socket.socket) -> None:
        with guest, (WORK / "model.bin").open("rb") as file:
            guest.sendfile(file)

    while True:
        guest, _ = door.accept()
        threading.Thread(target=one, args=(guest,), daemon=True).start()


# ── the lab ───────────────────────────────────────────────────────────────────────────────────


SPENT = """
from pathlib import Path
ticks = 0
for process in Path("/proc").glob("[0-9]*"):
    try:
        ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13]))
    except OSError:
        continue
print(ticks)
"""
"""Prints the processor time of all processes of a machine that live, in clock ticks."""


def processor_seconds(nodes: list[Any]) -> float:
    """Processor time of what runs in machines of the lab."""
    ticks = sum(int(node.run(PYTHON, "-c", SPENT).stdout) for node in nodes)
    return ticks / os.sysconf("SC_CLK_TCK")


def turn(center: Any, nodes: list[Any], told: dict[str, Any], side: str) -> dict[str, float]:
    """One distribution, from "go" until the last node has all."""
    children = []
    for node in nodes:
        words = json.dumps({**told, "name": node.name})
        children.append(node.spawn(PYTHON, HERE, "--side", side, "--told", words, input=True))
    for child in children:
        said = child.stdout.readline()
        if said != "ready\n":
            raise SystemExit(f"{side}: {said!r} {child.stderr.read()}")
    everywhere = [center, *nodes]
    before, used = link_bytes(center), processor_seconds(everywhere)
    begun = time.monotonic()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        said = child.stdout.readline()
        if said != "done\n":
            raise SystemExit(f"{side}: {said!r} {child.stderr.read()}")
    seconds = time.monotonic() - begun
    spent, after = processor_seconds(everywhere) - used, link_bytes(center)
    for child in children:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write("end\n")
            child.stdin.flush()
        child.wait(30)
    return {"seconds": seconds, "cpu_s": spent, "sent_mb": (after - before) / 1e6}


def link_bytes(node: Any) -> int:
    """Bytes that have left a node's link."""
    return int(node.run("cat", "/sys/class/net/host0/statistics/tx_bytes").stdout)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both ways in turns."""
    sys.path.insert(0, str(CHECKOUT))
    from lab import Lab

    size = int(options.gigabytes * 1e9) // CHUNK * CHUNK
    with Lab.open() as lab:
        center = lab.add("center", image="installed")
        nodes = [lab.add(f"node{n}", image="installed") for n in range(1, options.nodes + 1)]
        lab.boot()
        center.run("mkdir", "-p", str(WORK / "state"))
        folders = ("--state-dir", f"{WORK}/state", "--cache-dir", f"{WORK}/cache")
        where = ("--host", "::", "--port", str(PORT))
        center.spawn("llamaforge", "coordinator", "run", *where, *folders)
        center.wait_for(lambda: center.path(f"{WORK}/state/fleet.json").exists(), 60, "it serves")
        names = ",".join(node.name for node in nodes)
        prepared = center.run(
            *(PYTHON, HERE, "--side", "prepare", "--told", names, "--size", str(size)), timeout=300
        )
        for node in nodes:
            home = center.path(f"{WORK}/homes/{node.name}")
            for file in home.iterdir():
                node.write(f"{WORK}/home/{file.name}", file.read_text(), mode=0o600)
        sender = center.spawn(PYTHON, HERE, "--side", "send")
        assert sender.stdout is not None
        sender.stdout.readline()
        for node in (center, *nodes):
            node.shape(options.rate)
        told = {
            **json.loads(prepared.stdout.splitlines()[-1]),
            "coordinator": center.address,
            "peers": [(node.name, node.address) for node in nodes],
        }
        seen: dict[str, list[dict[str, float]]] = {"fetch": [], "receive": []}
        for _ in range(options.turns):
            for side, times in seen.items():
                times.append(turn(center, nodes, told, side))
                print(side, {k: round(v, 2) for k, v in times[-1].items()}, flush=True)
    return {"size": size, **seen}


def main() -> None:
    """Measures, or is one of the sides."""
    parser = argparse.ArgumentParser(description="see the module's docstring")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--told", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "prepare":
        prepare(options.told.split(","), options.size)
    elif options.side == "send":
        send()
    elif options.side:
        (fetch if options.side == "fetch" else receive)(json.loads(options.told))
    else:
        report(options, measure(options))


def report(options: argparse.Namespace, seen: dict[str, Any]) -> None:
    """Prints the last line."""

    def median(side: str, figure: str) -> float:
        return round(statistics.median(turn[figure] for turn in seen[side]), 2)

    ours, peer = median("fetch", "seconds"), median("receive", "seconds")
    bits = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}[options.rate[-4:]] * float(options.rate[:-4])
    line = seen["size"] * 8 / bits
    detail = {
        "nodes": options.nodes,
        "megabytes": round(seen["size"] / 1e6),
        "rate": options.rate,
        "line_s": [round(line, 2), round(line * options.nodes, 2)],
        "sent_mb": [median("fetch", "sent_mb"), median("receive", "sent_mb")],
        "cpu_s": [median("fetch", "cpu_s"), median("receive", "cpu_s")],
        "cores": os.cpu_count(),
        "turns": options.turns,
    }
    said = {"name": "bundle", "ours": ours, "peer": peer, "ratio": round(ours / peer, 3)}
    print(json.dumps({**said, "unit": "s until the last node has it", "detail": detail}))


if __name__ == "__main__":
    main()
