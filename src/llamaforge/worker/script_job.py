"""One generation of a script on this node: the folder laid out, its ranks as torchrun starts them.

Other than those of a training job (`worker.node_job`) its ranks know nothing of us: where they meet
is chosen by the worker of rank 0, results are the files in a folder, and a stop is a SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from llamaforge.bundle import code_layout
from llamaforge.errors import FleetError
from llamaforge.spec import ranks
from llamaforge.spec.script import ScriptJob
from llamaforge.wire.messages import Rendezvous
from llamaforge.worker import script_environment, script_main
from llamaforge.worker.interface import interface_of
from llamaforge.worker.node_job import NodeJob
from llamaforge.worker.rank_runner import Exit, Rank
from llamaforge.worker.script_environment import Seat

log = logging.getLogger("llamaforge.worker")


class Failure(msgspec.Struct, frozen=True):
    """An error that a script did not catch, as `script_main` leaves it."""

    kind: str
    message: str


class NodeScript(NodeJob):
    """Runs what one `StartRanks` with a script orders; arguments as for `NodeJob`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        script = self._order.script
        assert script is not None
        self._script: ScriptJob = script
        self._met = asyncio.Event()
        self._asked = False
        """Whether the ranks were asked to leave, and not driven out."""
        self._ends: dict[int, Exit] = {}
        self._news = asyncio.Event()

    @property
    def _output(self) -> Path:
        return self._folder / "output"

    def rendezvous(self, message: Rendezvous) -> None:
        """Where the ranks meet: those of this node can be started now."""
        if self._store_at is None:
            self._store_at = ranks.Rendezvous(host=message.host, port=message.port)
            self._met.set()

    def stop(self, how: Literal["checkpoint", "end"], reason: str) -> None:
        """Asks the ranks to leave (SIGTERM), or ends them."""
        super().stop(how, reason)
        if how == "checkpoint":
            self._asked = True
            for rank in self._ranks.values():
                rank.terminate()

    # ── before the ranks ──────────────────────────────────────────────────────────────────────

    async def _lay_out(self) -> None:
        """The folder is copied, since scripts write beside themselves; then the ranks meet."""
        await asyncio.to_thread(
            code_layout.lay_out,
            self._store,
            self._order.manifest,
            self._folder / "code",
            executable=self._script.executable,
            links=self._script.links,
        )
        self._output.mkdir()
        if self._order.first_rank == 0:
            port = _free_port(self._address)
            self._store_at = ranks.Rendezvous(host=self._address, port=port)
            self._reported(0, ranks.StoreReady(host=self._address, port=port))
        else:
            await self._met.wait()

    # ── the ranks ─────────────────────────────────────────────────────────────────────────────

    async def _start(self, number: int) -> None:
        seat = self._seat(number)
        seat.error_file.parent.mkdir()
        stacks, failure = (self._folder / f"rank-{number}.{name}" for name in ("stacks", "failure"))
        defaults = script_environment.defaults(seat, interface_of(self._address))
        rank = await self._runner.start_script(
            (script_main.__file__, str(stacks), str(failure), "--", *self._script.command),
            self._folder,
            cwd=self._folder / "code",
            defaults=defaults,
            environment={**self._script.environment, **script_environment.given(seat)},
            on_line=partial(self._printed, number),
        )
        self._ranks[number] = rank
        if self._stopping:
            rank.terminate()

    def _seat(self, number: int) -> Seat:
        order, store = self._order, self._store_at
        assert store is not None
        nodes = [peer.node for peer in order.peers] or [self._node]
        return Seat(
            job_id=order.job_id,
            rank=number,
            world_size=order.world_size,
            local_rank=number - order.first_rank,
            local_world_size=order.count,
            node=nodes.index(self._node) if self._node in nodes else 0,
            nodes=len(nodes),
            host=store.host,
            port=store.port,
            restarts=order.restarts,
            max_restarts=self._script.max_restarts,
            error_file=self._folder / f"rank-{number}" / "error.json",
            output=self._output,
        )

    async def _end_of(self, number: int, rank: Rank) -> Exit:
        """Waits for a rank's end. The results are told before the end of rank 0 is."""
        end = await rank.wait()
        self._ends[number] = end
        self._news.set()
        if end.code != 0 and not end.ordered:
            self._explain(number)
        if number == 0 and (end.code == 0 or self._asked):
            await self._others()
            if all(one.code == 0 for one in self._ends.values()):
                self._finished(stopped=False)
            elif self._asked:
                self._finished(stopped=True)
        return end

    async def _others(self) -> None:
        """Waits until all ranks of this node have ended."""
        while len(self._ends) < len(self._ranks):
            self._news.clear()
            await self._news.wait()

    def _finished(self, *, stopped: bool) -> None:
        where = str(self._output)
        self._reported(0, ranks.Finished(artifacts=where, proof={}, stopped=stopped))

    def _explain(self, number: int) -> None:
        """Tells the error that a rank left behind, if it left one."""
        try:
            written = (self._folder / f"rank-{number}.failure").read_bytes()
            failure = msgspec.json.decode(written, type=Failure)
        except FileNotFoundError:  # it was killed, or chose its exit code
            return
        except (OSError, msgspec.MsgspecError) as why:
            log.warning("rank %d: why it failed can't be read: %s", number, why)
            return
        self._reported(number, ranks.Failed(kind=failure.kind, message=failure.message))


def _free_port(address: str) -> int:
    """A port of this node that is free now.

    Raises:
        FleetError: the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.create_server((address, 0), family=family) as server:
            return int(server.getsockname()[1])
    except OSError as why:
        raise FleetError(
            f"ranks can't meet at {address}: {why.strerror or why}",
            hint="name an address of this machine with the worker's --address",
        ) from why
