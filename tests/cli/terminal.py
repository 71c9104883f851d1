"""`llamaforge` on a terminal of its own, with somebody who types."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

PATIENCE = 60.0


class Terminal:
    """Runs one command line on a pseudo-terminal; a context manager."""

    def __init__(self, *args: str, cwd: Path, environment: dict[str, str]) -> None:
        self._main, other = os.openpty()
        self._seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llamaforge", *args],
            cwd=cwd,
            env={**os.environ, "TERM": "xterm", **environment},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(other)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        if self._main >= 0:
            self._reader.join(PATIENCE)
            os.close(self._main)

    @property
    def text(self) -> str:
        """All that has been shown so far."""
        return self._seen.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while self.text.count(text) < times:
            assert time.monotonic() < end, f"never showed {text!r}: {self.text}"
            assert self.process.poll() is None or self._reader.is_alive(), self.text
            time.sleep(0.02)

    def hang_up(self) -> None:
        """The terminal is gone, as after a lost connection."""
        main, self._main = self._main, -1
        os.close(main)

    def code(self) -> int:
        """Waits for the end."""
        return self.process.wait(PATIENCE)

    def _read(self) -> None:
        while self._main >= 0:
            try:
                data = os.read(self._main, 4096)
            except OSError:  # the last one that had it open has ended
                return
            if not data:
                return
            self._seen += data
