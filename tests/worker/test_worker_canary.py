"""The canary slice is computed once for all that may change it, by a program that may fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from llamaforge.errors import LlamaForgeError
from llamaforge.worker.canary import FILE, KEPT, Canary
from llamaforge.worker.rank_runner import Exit


class FakeRank:
    pid = 0

    def __init__(self, end: asyncio.Future[Exit]) -> None:
        self.end, self.killed = end, False

    async def wait(self) -> Exit:
        return await asyncio.shield(self.end)

    def kill(self) -> None:
        self.killed = True


class FakeRunner:
    """Programs that say what the test wants."""

    canary = ("program",)

    def __init__(self) -> None:
        self.started: list[tuple[str, ...]] = []
        self.says = [json.dumps({"canary": "ab12"})]
        self.end = Exit(code=0)
        self.hold = asyncio.Event()
        self.hold.set()
        self.ranks: list[FakeRank] = []

    async def start_script(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        cwd: Path,
        defaults: Mapping[str, str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> FakeRank:
        assert folder == cwd
        assert folder.is_dir()
        assert not environment
        assert not defaults
        self.started.append(tuple(arguments))
        end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.ranks.append(FakeRank(end))
        await self.hold.wait()
        for line in self.says:
            on_line(line)
        end.set_result(self.end)
        return self.ranks[-1]


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.runner = folder, FakeRunner()
        self.boot, self.made_of = "one", {"torch": "2.13.0", "cpu": "A"}

    def canary(self) -> Canary:
        return Canary(
            self.runner,  # type: ignore[arg-type]
            self.folder / "cache",
            self.folder / "state",
            made_of=lambda: self.made_of,
            boot=lambda: self.boot,
        )


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_it_is_computed_once_and_kept_over_a_restart(world: World) -> None:
    assert await world.canary().digest("bf16", 1) == "ab12"
    assert await world.canary().digest("bf16", 1) == "ab12"
    assert world.runner.started == [("program", "--precision", "bf16", "--threads", "1")]


async def test_whatever_may_change_it_makes_it_be_computed_again(world: World) -> None:
    async def count() -> int:
        await world.canary().digest("bf16", 1)
        return len(world.runner.started)

    assert await count() == 1
    world.boot = "two"
    assert await count() == 2
    world.made_of = {**world.made_of, "torch": "2.13.1"}
    assert await count() == 3
    await world.canary().digest("bf16", 2)
    await world.canary().digest("fp32", 1)
    assert len(world.runner.started) == 5
    assert await count() == 5


async def test_two_who_ask_at_once_share_one_program_and_who_leaves_stops_nothing(
    world: World,
) -> None:
    world.runner.hold.clear()
    canary = world.canary()
    first = asyncio.ensure_future(canary.digest("bf16", 1))
    second = asyncio.ensure_future(canary.digest("bf16", 1))
    while not world.runner.started:
        await asyncio.sleep(0)
    assert canary.busy
    first.cancel()
    world.runner.hold.set()
    assert await second == "ab12"
    assert len(world.runner.started) == 1
    await asyncio.sleep(0)
    assert not canary.busy


async def test_a_program_that_fails_says_why_and_is_tried_again(world: World) -> None:
    world.runner.says, world.runner.end = ["Traceback", "ImportError: torch"], Exit(code=1)
    canary = world.canary()
    with pytest.raises(LlamaForgeError, match=r"\(exit code 1\): ImportError: torch"):
        await canary.digest("bf16", 1)
    world.runner.says, world.runner.end = [], Exit(signal=9)
    with pytest.raises(LlamaForgeError, match=r"\(signal 9\): it said nothing"):
        await canary.digest("bf16", 1)
    world.runner.says, world.runner.end = ['{"canary": "cd"}'], Exit(code=0)
    assert await canary.digest("bf16", 1) == "cd"


async def test_the_end_of_the_worker_ends_the_program(world: World) -> None:
    world.runner.hold.clear()
    canary = world.canary()
    asking = asyncio.ensure_future(canary.digest("bf16", 1))
    while not world.runner.started:
        await asyncio.sleep(0)
    await canary.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not canary.busy


@pytest.mark.parametrize("text", ["", "[1]", "nonsense", '{"x": 3}'])
async def test_a_file_that_is_broken_is_made_again(world: World, text: str) -> None:
    (world.folder / "cache").mkdir()
    (world.folder / "cache" / FILE).write_text(text)
    assert await world.canary().digest("bf16", 1) == "ab12"
    assert await world.canary().digest("bf16", 1) == "ab12"
    assert len(world.runner.started) == 1


async def test_old_results_go(world: World) -> None:
    for boot in range(KEPT + 5):
        world.boot = str(boot)
        await world.canary().digest("bf16", 1)
    assert len(json.loads((world.folder / "cache" / FILE).read_text())) == KEPT
