"""What the service manager is told: ready, status, alive, reloading, stopping.

Protocol: sd_notify(3); each message is one datagram of `NAME=value` lines to $NOTIFY_SOCKET.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger("llamaforge.systemd")


class Notify:
    """The way to the service manager; one that leads nowhere where there is none.

    Args:
        address: the socket's path, or `@` and a name in the abstract namespace; "" for none.
        watchdog_seconds: within which the manager wants to hear from us; 0 for never.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds
        self._said = ""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notify:
        """Takes the variables out of the environment: a child must not speak in our name."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        environ.pop("WATCHDOG_PID", None)
        seconds = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
        return cls(address, seconds)

    @property
    def listens(self) -> bool:
        """Whether a service manager started us and wants to hear."""
        return bool(self._address)

    def ready(self) -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for people, shown by `systemctl status`; said again only when it changes."""
        if text != self._said:
            self._said = text
            self._send("STATUS=" + " ".join(text.split()))

    def alive(self) -> None:
        """Feeds the watchdog."""
        self._send("WATCHDOG=1")

    def unwatched(self) -> None:
        """Ends the watchdog, for a program that can't feed it."""
        self._send("WATCHDOG_USEC=0")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """The service has begun to end, and may take so long, whatever TimeoutStopSec= says."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
                way.settimeout(_PATIENCE)
                way.sendto(message.encode(errors="replace"), self._address)
        except OSError as why:  # a manager that restarts must not end the service
            log.debug("the service manager did not hear %r: %s", message, why)


_MONOTONIC = time.CLOCK_MONOTONIC
_PATIENCE = 1.0
"""Seconds that a message may take: the manager reads them one by one."""
