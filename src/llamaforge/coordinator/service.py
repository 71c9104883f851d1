"""The coordinator as its service manager sees it: ready, what it does, that its loop turns, reload.

By hand, without a service manager, all of this leads nowhere and costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from llamaforge.coordinator.configuration import Configuration
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.fleet import CoordinatorSettings
from llamaforge.spec.states import JobState, NodeState
from llamaforge.systemd.notify import Notify
from llamaforge.systemd.restarts import WINDOW, Restarts
from llamaforge.wire.api import Status

BEAT_SECONDS = 1.0
"""Between two words to the service manager."""
STOP_SECONDS = 20.0
"""Within which it ends once it is told to."""
_CONNECTED = (NodeState.READY, NodeState.BUSY, NodeState.DRAINING, NodeState.CORDONED)
_AT_WORK = (JobState.STARTING, JobState.RUNNING, JobState.FINISHING)

log = logging.getLogger("llamaforge.coordinator")


class Service:
    """What ties a coordinator to systemd.

    Args:
        configuration: its settings, which SIGHUP reads again.
        notify: the way to the service manager.
        runtime: the unit's runtime folder; None without systemd.
        status: the fleet as it is now.
        apply: takes settings that have changed.
        trouble: what keeps it from working as it should, such as a full disk; "" for nothing.
    """

    def __init__(
        self,
        configuration: Configuration,
        notify: Notify,
        runtime: Path | None,
        *,
        status: Callable[[], Status],
        apply: Callable[[CoordinatorSettings], None] = lambda _: None,
        trouble: Callable[[], str] = str,
    ) -> None:
        self._configuration, self._notify = configuration, notify
        self._restarts = Restarts(runtime)
        self._status, self._apply, self._trouble = status, apply, trouble
        self._ending = ""

    async def pause(self) -> None:
        """Waits, ready but idle, where it has crashed often: a crash can't spin the machine."""
        seconds = self._restarts.begin()
        if seconds <= 0:
            return
        said = (
            f"ended without order {self._restarts.crashes} times in {WINDOW / 60:.0f} min; "
            f"goes on in {seconds:.0f} s"
        )
        log.warning("%s", said)
        self._notify.ready()
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self._notify.status(said)
            self._notify.alive()
            await asyncio.sleep(min(BEAT_SECONDS, left))

    async def run(self) -> None:
        """Says ready, then how things are for as long as the event loop turns. Never returns."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        begin, calm = loop.time(), False
        self._notify.ready()
        while True:
            self._notify.status(self.line)
            self._notify.alive()
            if not calm and loop.time() - begin > WINDOW:
                calm = True
                self._restarts.forget()
            await asyncio.sleep(BEAT_SECONDS)

    def reload(self) -> None:
        """Reads the settings again; wrong ones are told and change nothing."""
        self._notify.reloading()
        try:
            change = self._configuration.reload()
        except LlamaForgeError as error:
            log.error("the settings stay as they were: %s", error)
        else:
            log.info("settings read again; %s", change)
            self._apply(self._configuration.settings)
        self._notify.ready()

    def ending(self, why: str) -> None:
        """It was told to end, so that this end is no crash."""
        self._ending = why
        self._restarts.forget()
        self._notify.stopping(STOP_SECONDS)
        self._notify.status(self.line)

    @property
    def line(self) -> str:
        """The one line for `systemctl status`."""
        if self._ending:
            return f"ending: {self._ending}; running jobs go on"
        trouble = self._trouble()
        said = line_of(self._status())
        return f"{trouble}; {said}" if trouble else said


def line_of(status: Status) -> str:
    """`3 nodes ready, 1 busy, 1 job running, 2 queued`; what there is none of is left out."""
    nodes = [node.state for node in status.nodes]
    jobs = [job.state for job in status.jobs if not job.state.final]
    connected = sum(state in _CONNECTED for state in nodes)
    parts = [
        _count(nodes.count(NodeState.READY), "ready"),
        *(_count(nodes.count(state), state.value) for state in NodeState if state.value != "ready"),
    ]
    said = ", ".join(filter(None, parts))
    first = f"{connected} {'node' if connected == 1 else 'nodes'} connected"
    at_work = sum(state in _AT_WORK for state in jobs)
    work = [
        _count(at_work, "job running" if at_work == 1 else "jobs running"),
        _count(jobs.count(JobState.QUEUED), "queued"),
        _count(jobs.count(JobState.PAUSED), "paused"),
    ]
    doing = ", ".join(filter(None, work)) or "no job"
    return f"{first} ({said}); {doing}" if said else f"{first}; {doing}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number else ""
