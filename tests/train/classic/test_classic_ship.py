"""Files travel over real Gloo groups between stores in different folders."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError, LlamaForgeError
from llamaforge.train.classic import ship
from llamaforge.train.classic.exchange import Exchange, Refused
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.team import Team


def entry(path: str, data: bytes) -> Entry:
    return Entry(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def team(local_ranks: list[int]) -> Team:
    names = [f"node{node}" for node in range(len(local_ranks))]
    return Team(
        names=names, addresses=["127.0.0.1"] * len(names), local_ranks=local_ranks, threads=1
    )


class Cluster:
    """Processes of a job as threads, each node with a store and a folder of its own."""

    def __init__(self, root: Path, local_ranks: list[int]) -> None:
        self.team = team(local_ranks)
        self.stores = [BlobStore(root / f"cache{node}") for node in range(len(local_ranks))]
        self.root = root
        self.lines: list[list[str]] = [[] for _ in range(sum(local_ranks))]

    def deliver(self, manifest: Manifest) -> list[Path | Exception]:
        shared = HashStore()
        places = [
            (node, local)
            for node, count in enumerate(self.team.local_ranks)
            for local in range(count)
        ]
        ends: list[Path | Exception] = [RuntimeError("hung")] * len(places)

        def one(rank: int, node: int, local: int) -> None:
            launch = Launch(
                rank=rank,
                world_size=len(places),
                local_rank=local,
                local_ranks=self.team.local_ranks[node],
                node=node,
                nodes=len(self.stores),
            )
            exchange = Exchange(shared, launch)
            try:
                ends[rank] = ship.deliver(
                    exchange,
                    self.team,
                    manifest,
                    self.stores[node],
                    folder=self.root / f"bundle{node}",
                    tell=self.lines[rank].append,
                )
            except LlamaForgeError as error:
                exchange.refuse(error)
                ends[rank] = error

        threads = [
            threading.Thread(target=one, args=(rank, *place), daemon=True)
            for rank, place in enumerate(places)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return ends


def test_a_node_gets_what_it_lacks_and_only_that(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, [1, 1])
    model, rows = bytes(range(256)) * 40_000, b'{"a": 1}\n'
    for data in (model, rows, b""):
        cluster.stores[0].add_bytes(data)
    cluster.stores[1].add_bytes(rows)
    manifest = Manifest(
        entries=(entry("data/train.jsonl", rows), entry("empty", b""), entry("model/w", model))
    )
    _, bundle = cluster.deliver(manifest)
    assert (bundle / "model" / "w").read_bytes() == model
    assert (bundle / "data" / "train.jsonl").read_bytes() == rows
    assert (bundle / "empty").read_bytes() == b""
    assert "2 files, 10.2 MB" in cluster.lines[0][-1]
    assert "receiving from node0" in cluster.lines[1][-1]


def test_the_second_job_sends_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, [1, 1])
    cluster.stores[0].add_bytes(b"weights")
    manifest = Manifest(entries=(entry("model/w", b"weights"),))
    cluster.deliver(manifest)
    for lines in cluster.lines:
        lines.clear()
    _, bundle = cluster.deliver(manifest)
    assert (bundle / "model" / "w").read_bytes() == b"weights"
    assert cluster.lines == [[], []]


def test_unequal_numbers_of_ranks_share_their_nodes_files(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, [2, 3])
    cluster.stores[0].add_bytes(b"weights")
    bundles = cluster.deliver(Manifest(entries=(entry("model/w", b"weights"),)))
    assert bundles == [tmp_path / "bundle0"] * 2 + [tmp_path / "bundle1"] * 3
    assert [bool(lines) for lines in cluster.lines] == [True, False, True, False, False]


def test_a_node_that_has_everything_is_left_alone(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, [1, 1, 1])
    cluster.stores[0].add_bytes(b"weights")
    cluster.stores[1].add_bytes(b"weights")
    ends = cluster.deliver(Manifest(entries=(entry("model/w", b"weights"),)))
    assert all((Path(str(end)) / "model" / "w").is_file() for end in ends)
    assert cluster.lines[1] == []
    assert "sending to node2" in cluster.lines[0][-1]


def test_a_file_of_the_first_node_that_has_changed_ends_it_on_both_sides(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, [1, 1])
    file = tmp_path / "w"
    file.write_bytes(b"weights")
    sha256, size = cluster.stores[0].add_file(file)
    file.write_bytes(b"other")
    first, second = cluster.deliver(
        Manifest(entries=(Entry(path="model/w", sha256=sha256, size=size),))
    )
    assert isinstance(first, IntegrityError)
    assert isinstance(second, Refused)
    assert second.message == first.message


def test_paths_that_leave_the_bundle_are_refused(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, [1, 1])
    cluster.stores[0].add_bytes(b"x")
    ends = cluster.deliver(Manifest(entries=(entry("../escape", b"x"),)))
    assert all("'../escape'" in str(end) for end in ends)
    assert not (tmp_path / "escape").exists()


digests = st.sets(st.sampled_from("abcdef"))


@given(st.lists(digests, min_size=1, max_size=5))
def test_a_plan_covers_all_that_is_lacking_and_nothing_else(lacking: list[set[str]]) -> None:
    manifest = Manifest(
        entries=tuple(Entry(path=name, sha256=name, size=1) for name in sorted("abcdef"))
    )
    delivery = ship.plan(manifest, [set(), *lacking])
    assert {entry.sha256 for entry in delivery.entries} == set().union(*lacking)
    assert set(delivery.nodes[1:]) == {n for n, some in enumerate(lacking, 1) if some}
    assert bool(delivery.nodes) == bool(delivery.entries)


def test_the_first_node_must_have_everything() -> None:
    manifest = Manifest(entries=(entry("a", b"a"),))
    with pytest.raises(IntegrityError, match="vanished"):
        ship.plan(manifest, [{manifest.entries[0].sha256}])


def test_progress_is_told_now_and_then() -> None:
    now = [0.0]
    lines: list[str] = []
    progress = ship.Progress(
        "sending",
        [Entry(path="a", sha256="0", size=10_000_000)],
        lines.append,
        clock=lambda: now[0],
    )
    progress.add(1_000_000)
    now[0] = 2.0
    progress.add(4_000_000)
    progress.add(5_000_000)
    now[0] = 4.0
    progress.end()
    assert lines == ["sending: 50% of 10.0 MB", "sending: 1 file, 10.0 MB in 4.0 s"]
