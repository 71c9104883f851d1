"""Words between processes: over torch's real store, where they are heard, refused, and lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore, TCPStore

from llamaforge.errors import FleetError, LlamaForgeError, SpecError
from llamaforge.spec.ranks import Failed, Stop
from llamaforge.train.classic.exchange import Exchange, Refused, as_failed
from llamaforge.train.classic.launch import Launch


def pair() -> tuple[Exchange, Exchange]:
    store = HashStore()
    return tuple(
        Exchange(store, Launch(rank=rank, world_size=2, node=rank, nodes=2)) for rank in (0, 1)
    )


def test_a_word_is_heard() -> None:
    first, second = pair()
    threading.Timer(0.05, first.say, ["word", Stop(reason="now")]).start()
    assert second.hear("word", Stop, patience=10).reason == "now"


def test_a_word_that_does_not_come_is_named() -> None:
    _, second = pair()
    with pytest.raises(FleetError, match=r"'word' within 0\.05 seconds"):
        second.hear("word", Stop, patience=0.05)


def test_a_refusal_reaches_whoever_waits() -> None:
    first, second = pair()
    first.refuse(SpecError("epochs is 0", hint="give 1 or more"))
    with pytest.raises(Refused, match="epochs is 0") as seen:
        second.hear("word", Stop)
    assert seen.value.hint == "give 1 or more"
    assert seen.value.exit_code == 2


def test_the_first_refusal_stays() -> None:
    first, second = pair()
    first.refuse(LlamaForgeError("the cause"))
    assert second.refuse(LlamaForgeError("a consequence")).message == "the cause"


def test_a_word_that_was_said_is_heard_in_spite_of_a_refusal() -> None:
    first, second = pair()
    first.say("word", Stop(reason="now"))
    first.refuse(LlamaForgeError("later"))
    assert second.hear("word", Stop).reason == "now"


def test_bugs_travel_with_the_name_of_their_class() -> None:
    assert as_failed(ZeroDivisionError("by zero")) == Failed(
        kind="ZeroDivisionError", message="ZeroDivisionError: by zero"
    )


def test_a_word_too_long_for_the_store_is_a_bug_of_ours() -> None:
    first, _ = pair()
    with pytest.raises(ValueError, match="the store takes"):
        first.say("word", "x" * (5 << 20))


def test_the_first_node_waits_until_all_have_heard_a_refusal() -> None:
    first, second = pair()
    second.part(patience=0)
    first.part(patience=60)  # would time the test out if it counted wrongly


def test_the_first_node_does_not_wait_for_ever() -> None:
    first, _ = pair()
    first.part(patience=0)


def test_a_store_that_ends_is_noticed_by_whoever_waits() -> None:
    script = (
        "import sys, torch.distributed as d; s = d.TCPStore('127.0.0.1', 0, 1, True, "
        "wait_for_workers=False); print(s.port, flush=True); sys.stdin.readline()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    port = int(server.stdout.readline())
    launch = Launch(rank=1, world_size=2, node=1, nodes=2, store_host="127.0.0.1", store_port=port)
    exchange = Exchange.open(launch)
    threading.Timer(0.1, server.kill).start()
    with pytest.raises(FleetError, match=rf"store on 127.0.0.1:{port} is gone"):
        exchange.hear("word", Stop, patience=30)
    assert exchange.refuse(LlamaForgeError("alone")).message == "alone"
    server.wait()


def test_attempts_do_not_hear_each_other() -> None:
    store = TCPStore("127.0.0.1", 0, 1, True, timedelta(seconds=10), wait_for_workers=False)
    where = {"store_host": "127.0.0.1", "store_port": store.port}
    Exchange.open(Launch(**where)).refuse(LlamaForgeError("old"))
    assert Exchange.open(Launch(**where, attempt=1)).refusal() is None
    assert Exchange.open(Launch(**where)).refusal().message == "old"
