"""Ranks as real processes: what they say, how they end, and that nothing outlives the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet_rig import alive
from jobs import make_job
from llamaforge.spec.fleet import worker_settings
from llamaforge.spec.ranks import Assignment, FromRank, Note, Stop
from llamaforge.worker import process_runner
from llamaforge.worker.process_runner import LINE_BYTES, ProcessRunner, RankProcess, lines

HEAD = """
import json, os, signal, socket, subprocess, sys, time
fd = int(sys.argv[sys.argv.index("--control-fd") + 1])
pipe = socket.socket(fileno=fd)
def say(tag, **fields):
    pipe.sendall(json.dumps({"type": tag, **fields}).encode() + b"\\n")
def note(text):
    say("note", kind="k", text=text)
"""


class Started:
    def __init__(self) -> None:
        self.reports: list[FromRank] = []
        self.printed: list[str] = []
        self.news = asyncio.Event()
        self.rank: RankProcess

    def report(self, report: FromRank) -> None:
        self.reports.append(report)
        self.news.set()


async def start(folder: Path, body: str) -> Started:
    script = folder / "rank.py"
    script.write_text(HEAD + body)
    assignment = Assignment(
        job=make_job(),
        generation=1,
        rank=3,
        world_size=4,
        local_rank=0,
        node="a",
        address="127.0.0.1",
        bundle="",
        workdir="",
        cache_dir="",
    )
    started = Started()
    started.rank = await ProcessRunner(worker_settings({}, {}), {}, rank=(str(script),)).start(
        assignment, folder, on_report=started.report, on_line=started.printed.append
    )
    return started


async def test_reports_and_output_come_through(tmp_path: Path) -> None:
    body = """
note("one"); print("out"); print("err", file=sys.stderr, flush=True)
print("progress\\rbar", flush=True); print("x" * 10_000)
pipe.sendall(b"nonsense\\n"); note("two"); sys.exit(4)
"""
    started = await start(tmp_path, body)
    end = await started.rank.wait()
    assert (end.code, end.signal, end.ordered) == (4, None, False)
    assert [r.text for r in started.reports if isinstance(r, Note)] == ["one", "two"]
    assert set(started.printed) == {"out", "err", "progress", "bar", "x" * LINE_BYTES}
    assert end.last_lines == tuple(started.printed)


async def test_a_report_that_is_too_long_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_runner, "REPORT_BYTES", 1 << 16)
    started = await start(tmp_path, 'note("x" * 5_000_000); note("two")')
    end = await asyncio.wait_for(started.rank.wait(), 20)
    assert end.code == 0
    assert [r.text for r in started.reports if isinstance(r, Note)] == ["two"]


async def test_it_hears_what_is_said(tmp_path: Path) -> None:
    started = await start(tmp_path, "note(pipe.recv(1000).decode())")
    started.rank.say(Stop(reason="enough"))
    await started.rank.wait()
    assert '"reason":"enough"' in started.reports[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("act", "number", "ordered"),
    [("terminate", signal.SIGTERM, True), ("kill", signal.SIGKILL, True), (None, 9, False)],
)
async def test_a_signal_is_told_and_whose_it_was(
    tmp_path: Path, act: str | None, number: int, ordered: bool
) -> None:
    body = 'note("up")\n' + ("time.sleep(60)" if act else "os.kill(os.getpid(), 9)")
    started = await start(tmp_path, body)
    await started.news.wait()
    if act:
        getattr(started.rank, act)()
    end = await started.rank.wait()
    assert (end.code, end.signal, end.ordered) == (None, number, ordered)


async def test_children_of_a_rank_end_with_it(tmp_path: Path) -> None:
    body = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=-3)
note(str(child.pid))
"""
    started = await start(tmp_path, body)
    await started.rank.wait()
    pid = int(started.reports[0].text)  # type: ignore[union-attr]
    for _ in range(100):
        if not alive(pid):
            break
        await asyncio.sleep(0.02)
    assert not alive(pid)


async def test_torchruns_variables_do_not_reach_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("KEPT", "yes")
    started = await start(tmp_path, 'note(os.environ.get("MASTER_ADDR", "-") + os.environ["KEPT"])')
    await started.rank.wait()
    assert started.reports[0].text == "-yes"  # type: ignore[union-attr]


PARENT = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_worker_process_runner import start

async def main():
    stubborn = 'signal.signal(15, signal.SIG_IGN); note(str(os.getpid())); time.sleep(60)'
    started = await start(Path({folder!r}), stubborn)
    await started.news.wait()
    print(started.reports[0].text, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_rank_dies_with_its_worker_whatever_kills_it(tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = PARENT.format(paths=[str(here), str(here.parent)], folder=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    rank = int(parent.stdout.readline())
    assert alive(rank)
    assert os.getsid(rank) == rank
    parent.kill()
    parent.wait()
    until = time.monotonic() + 5
    while alive(rank) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(rank)


async def test_lines_of_any_shape() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"a\r\n\n" + b"\xff\n" + b"tail")
    reader.feed_eof()
    assert [line async for line in lines(reader)] == ["a", "\ufffd", "tail"]
