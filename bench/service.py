"""What the worker's service costs a machine: from power-on to waiting, idle, and 100 restarts.

    sudo .venv/bin/python bench/service.py [--boots 3] [--idle 60] [--restarts 100]

Two equal machines of the lab (real systemd, see lab/README.md) wait for a coordinator on which
nothing listens. One runs the worker as `llamaforge worker install` sets it up. The peer is the way
without LlamaForge: a plain unit that keeps torchrun waiting with static rendezvous, and starts it
again when it gives up. Both are measured in the same minute. "Knocking" is the first connection
that the coordinator sees after power-on, for the peer as for us; `boot_s` ends when our STATUS says
"waiting". `rss_mb`, `pss_mb` and `cpu_share` count all processes of the unit. The last line is one
JSON object; its `ours`, `peer` and `ratio` are resident memory. It takes about five minutes.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import Lab, Node

PORT = 29500
OURS, PEER = "llamaforge-worker", "torchrun-worker"
PEER_UNIT = """\
[Unit]
Description=Distributed training worker
After=network-online.target
Wants=network-online.target

[Service]
Type=simple
ExecStart=/opt/llamaforge/current/bin/python3 -m torch.distributed.run --nproc_per_node=1 \
  --nnodes=2 --node_rank=1 --master_addr={coordinator} --master_port=29500 \
  /srv/llamaforge/distributed_train.py
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
TICKS = 100
"""Clock ticks per second in /proc (USER_HZ)."""
LOOK = """
import json, sys
from pathlib import Path
unit = sys.argv[1]
seen = {"rss_kb": 0, "pss_kb": 0, "ticks": 0, "fds": 0, "processes": 0}
for process in Path("/proc").glob("[0-9]*"):
    try:
        if f"/{unit}.service" not in (process / "cgroup").read_text():
            continue
        numbers = dict(line.split(":", 1) for line in
                       (process / "smaps_rollup").read_text().splitlines()[1:])
        times = (process / "stat").read_text().rpartition(")")[2].split()[11:15]
        seen["rss_kb"] += int(numbers["Rss"].split()[0])
        seen["pss_kb"] += int(numbers["Pss"].split()[0])
        seen["ticks"] += sum(map(int, times))
        seen["fds"] += len(list((process / "fd").iterdir()))
        seen["processes"] += 1
    except OSError:
        continue
folders = [Path("/var/lib/llamaforge"), Path("/var/cache/llamaforge"), Path("/run/llamaforge")]
seen["files"] = sum(1 for folder in folders for file in folder.rglob("*"))
print(json.dumps(seen))
"""


class Coordinator:
    """A machine that people's workers knock at: notes when, and answers nothing."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.knocks: dict[str, float] = {}

    def __enter__(self) -> Coordinator:
        self._door = socket.create_server((self._address, PORT))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._door.close()

    def _listen(self) -> None:
        while True:
            try:
                guest, (address, _) = self._door.accept()
            except OSError:  # the door was closed
                return
            self.knocks.setdefault(address, time.monotonic())
            guest.close()


def status(node: Node) -> str:
    """Our worker's STATUS."""
    return node.run("systemctl", "show", OURS, "-P", "StatusText", check=False).stdout.strip()


def look(node: Node, unit: str) -> dict[str, int]:
    """What a unit's processes hold and have used."""
    said: dict[str, int] = json.loads(node.run("/usr/bin/python3", "-c", LOOK, unit).stdout)
    return said


def power_on(node: Node, coordinator: Coordinator, ready: Callable[[], bool]) -> dict[str, float]:
    """Seconds from power-on to the first knock and, ours, to `waiting`. Raises LabError."""
    coordinator.knocks.clear()
    begun = time.monotonic()
    node.start()
    node.wait_booted()
    node.wait_for(ready, 90, "it is ready")
    done = time.monotonic() - begun
    node.wait_for(lambda: node.address in coordinator.knocks, 90, "it knocks")
    return {"ready": done, "knock": coordinator.knocks[node.address] - begun}


def boots(lab: Lab, ours: Node, peer: Node, turns: int) -> dict[str, float]:
    """Median seconds after power-on, of both; they take turns, alone on the box."""
    seen: dict[str, list[float]] = {"boot_s": [], "knock_s": [], "peer_knock_s": []}
    with Coordinator(lab.gateway) as coordinator:
        for _ in range(turns):
            mine = power_on(ours, coordinator, lambda: status(ours).startswith("waiting"))
            ours.power_cut()
            theirs = power_on(peer, coordinator, lambda: True)
            peer.power_cut()
            seen["boot_s"].append(mine["ready"])
            seen["knock_s"].append(mine["knock"])
            seen["peer_knock_s"].append(theirs["knock"])
            print(f"boot: {mine} torchrun: {theirs}", flush=True)
    return {name: round(statistics.median(times), 2) for name, times in seen.items()}


def idle(ours: Node, peer: Node, seconds: float) -> dict[str, float]:
    """Memory in MB and share of one core of both while they wait, over the same time."""
    ours.wait_for(lambda: status(ours).startswith("waiting"), 60, "our worker waits")
    peer.wait_for(lambda: look(peer, PEER)["rss_kb"] > 100_000, 90, "torchrun has loaded torch")
    time.sleep(15)
    sides = {"": (ours, OURS), "peer_": (peer, PEER)}
    before = {side: look(*where) for side, where in sides.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    found: dict[str, float] = {}
    for side, where in sides.items():
        now = look(*where)
        found[f"{side}rss_mb"] = round(now["rss_kb"] / 1024, 1)
        found[f"{side}pss_mb"] = round(now["pss_kb"] / 1024, 1)
        found[f"{side}cpu_share"] = round(
            (now["ticks"] - before[side]["ticks"]) / TICKS / passed, 5
        )
        found[f"{side}processes"] = now["processes"]
    print(f"idle: {found}", flush=True)
    return found


def restarts(node: Node, times: int) -> dict[str, Any]:
    """What a worker holds after its first restarts and after the last ones, and what they cost."""
    seen, took = [], []
    lines = len(node.journal(OURS))
    for _ in range(times):
        begun = time.monotonic()
        node.run("systemctl", "restart", OURS)
        node.wait_for(lambda: status(node).startswith("waiting"), 60, "it waits again")
        took.append(time.monotonic() - begun)
        seen.append(look(node, OURS))
    few = max(1, times // 10)
    found: dict[str, Any] = {"restarts": times, "restart_s": round(statistics.median(took), 2)}
    for name in ("rss_kb", "fds", "files", "processes"):
        ends = [statistics.median(one[name] for one in part) for part in (seen[:few], seen[-few:])]
        found[f"{name}_first_last"] = ends
    found["journal_lines_per_restart"] = round((len(node.journal(OURS)) - lines) / times, 1)
    print(f"restarts: {found}", flush=True)
    return found


def main() -> None:
    """Measures all and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boots", type=int, default=3)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--restarts", type=int, default=100)
    options = parser.parse_args()
    with Lab.open() as lab:
        ours, peer = (lab.add(name, image="installed") for name in ("ours", "peer"))
        lab.boot()
        ours.run("llamaforge", "worker", "install", "--master-addr", lab.gateway, timeout=120)
        unit = PEER_UNIT.format(coordinator=lab.gateway)
        peer.write(f"/etc/systemd/system/{PEER}.service", unit)
        peer.run("systemctl", "enable", PEER)
        ours.shutdown()
        peer.shutdown()
        detail = boots(lab, ours, peer, options.boots)
        lab.boot()
        detail |= idle(ours, peer, options.idle)
        peer.power_cut()
        detail |= restarts(ours, options.restarts)
    mine, theirs = detail["rss_mb"], detail["peer_rss_mb"]
    said = {"name": "service", "ours": mine, "peer": theirs, "ratio": round(mine / theirs, 3)}
    print(json.dumps({**said, "unit": "MB resident, waiting", "detail": detail}))


if __name__ == "__main__":
    main()
