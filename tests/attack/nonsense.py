"""What nobody should send: valid messages of every kind, and what chance makes of them."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
from hypothesis import strategies as st

from jobs import make_job
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.spec import ranks
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState
from llamaforge.spec.wishes import Wishes
from llamaforge.wire import api, messages, updates
from llamaforge.wire.session import Frame

JOB = "victim"
MANIFEST = Manifest(entries=(Entry(path="data/train.jsonl", sha256="0" * 64, size=3),))
OF = {"job_id": JOB, "generation": 1}
REPORTS: list[ranks.FromRank] = [
    ranks.StoreReady(host="127.0.0.1", port=1),
    ranks.Metric(line={"step": 3, "loss": 1.5, "shares": {"a": 1}}),
    ranks.Progress(job=JOB, generation=1, rank=0, world_size=1, nodes=1, step=1, total_steps=2),
    ranks.Note(kind="guarantee", text="same numbers", fields={"a": [1]}),
    ranks.CheckpointDone(step=4, path="/x"),
    ranks.Finished(artifacts="/x", proof={"steps": 4}),
    ranks.Failed(kind="RuntimeError", message="loss is NaN"),
]
FROM_WORKER: list[messages.FromWorker] = [
    messages.Idle(),
    messages.Busy(reason="a classic job"),
    messages.Leaving(reason="SIGTERM"),
    messages.Left(),
    messages.CannotStart(**OF, kind="DataError", message="no", busy=True),
    messages.CannotStart(**OF, kind="DataError", message="no"),
    *(messages.RankSaid(**OF, rank=0, report=report) for report in REPORTS),
    messages.RankLog(job_id=JOB, rank=0, line="hello"),
    messages.RankExited(**OF, rank=0, code=0),
    messages.RankExited(**OF, rank=0, signal=9, last_lines=("a",)),
    messages.Uploaded(**OF, what="artifacts"),
    messages.Uploaded(job_id=JOB, what="checkpoint", name="../../etc", error="no"),
    messages.Beat(**OF, step=3),
    messages.PreflightReport(
        **OF, canary="c", links=(messages.LinkSpeed(node="a", ok=True),), fingerprint={"torch": "2"}
    ),
    messages.Stacks(**OF, ranks=(messages.RankStack(rank=0, state="S", text="t"),)),
    messages.Inventory(cache_bytes=1, cache_limit=2, disk_free=3),
]
HELLO = messages.Hello(node="evil", identity="i", session="s", cores=1, memory=1, labels=("a",))
START = messages.StartRanks(
    job=make_job(), generation=1, manifest=MANIFEST, first_rank=0, count=1, world_size=1
)
PEER = messages.Peer(node="a", address="b", port=1)
FROM_COORDINATOR: list[messages.FromCoordinator] = [
    START,
    messages.Rendezvous(**OF, host="h", port=1),
    messages.StopRanks(**OF, how="end", reason="r"),
    messages.Roster(nodes=("a",)),
    messages.Preflight(**OF, manifest=MANIFEST, peers=(PEER,)),
    messages.DumpStacks(**OF),
]
UPDATES: list[updates.JobUpdate] = [
    updates.StateChanged(state=JobState.RUNNING),
    updates.MetricLine(line={"step": 1}),
    updates.NoteLine(kind="k", text="t"),
    updates.LogLine(node="n", rank=0, text="t"),
    updates.Ended(state=JobState.DONE, reason="", output_dir="/x", proof={"a": 1}),
]
WAITS = Wishes(min_nodes=50, labels=("nowhere",))
"""What is submitted by chance waits for ever."""
SCRIPT = ScriptJob(id="chance", command=("a.py", "--x"), wishes=WAITS)
BODIES: dict[str, list[msgspec.Struct]] = {
    api.JOBS: [
        api.Submission(
            job=msgspec.structs.replace(make_job(), id="chance"), manifest=Manifest(), wishes=WAITS
        ),
        api.Submission(script=SCRIPT, manifest=Manifest(), wishes=WAITS),
    ],
    f"{api.JOBS}/chance/stop": [api.StopRequest(reason="r", now=True)],
    f"{api.JOBS}/chance/resume": [api.StopRequest(reason="r")],
    api.MISSING: [MANIFEST],
    f"{api.NODES}/evil": [api.NodeWish(wish="cordon", reason="r")],
    api.TOKENS: [api.TokenWish(uses=2)],
    api.JOIN: [api.JoinRequest(token="lf1.a.b.c", name="new", request="-----BEGIN")],
    api.RENEW: [api.RenewRequest(request="-----BEGIN")],
}
EVERYTHING: list[tuple[Any, msgspec.Struct]] = [
    *((messages.FromWorker, message) for message in FROM_WORKER),
    *((messages.FromCoordinator, message) for message in FROM_COORDINATOR),
    *((ranks.FromRank, report) for report in REPORTS),
    (ranks.ToRank, ranks.Stop(reason="r")),
    (ranks.ToRank, ranks.Rendezvous(host="h", port=1)),
    (messages.Hello, HELLO),
    (messages.Welcome | messages.Refusal, messages.Refusal(reason="r")),
    (Frame, Frame(number=1, received=2)),
    *((updates.JobUpdate, update) for update in UPDATES),
    *((type(body), body) for bodies in BODIES.values() for body in bodies),
]
DEPTHS = (40, 500, 3000)
ODD: list[Any] = [
    *(None, True, "", "x", "\0", "\ud800", "../../etc/passwd", "%s%n{}", "٣", "a" * 5000, "\u202e"),
    *(-1, 0, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], {"type": "idle"}, {"": {"": None}}, ["x"] * 300),
]


def spoil(body: msgspec.Struct, chance: random.Random) -> bytes:
    """A message with a few places changed, as JSON, or what is hardly JSON."""
    tree = json.loads(msgspec.json.encode(body))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        tree = _changed(tree, chance)
    data = json.dumps(tree).encode()
    for levels in DEPTHS:
        data = data.replace(b'"%s"' % _deep(levels).encode(), b"[" * levels + b"]" * levels)
    if chance.random() < 0.1:
        place = chance.randrange(len(data) + 1)
        data = data[:place] + chance.randbytes(chance.randrange(4)) + data[place + 1 :]
    return data


def _deep(levels: int) -> str:
    """Stands for so many lists in lists, of which Python's own JSON makes no more than 1,000."""
    return f"deep {levels}"


def _changed(tree: Any, chance: random.Random) -> Any:
    odd = chance.choice(ODD) if chance.random() < 0.95 else _deep(chance.choice(DEPTHS))
    inner = tree if isinstance(tree, dict | list) and tree else None
    if inner is None or chance.random() < 0.15:
        return odd
    if isinstance(inner, list):
        place = chance.randrange(len(inner))
        return [*inner[:place], _changed(inner[place], chance), *inner[place + 1 :]]
    key = chance.choice(sorted(inner))
    kind = chance.random()
    if kind < 0.1:
        return {name: value for name, value in inner.items() if name != key}
    if kind < 0.2:
        return {**inner, chance.choice(("kind", "text", "self", "type", "fields", "x")): odd}
    return {**inner, key: _changed(inner[key], chance)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)
