"""Says "ready" for a torchrun that an edited unit starts instead of our worker.

The unit is `Type=notify`, and torchrun knows nothing of that: systemd would wait, give up and
kill it. `packaging/python/llamaforge_ready.pth`, which Python reads at its start, calls this when
a service manager started `torch.distributed.run`.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from llamaforge.systemd.notify import Notify


def announce(environ: MutableMapping[str, str]) -> bool:
    """Reports this process as ready, and takes it from the watchdog, which torchrun doesn't feed.

    Children of the service say nothing: systemd names its own process in SYSTEMD_EXEC_PID.

    Returns:
        Whether something was said.
    """
    if environ.get("SYSTEMD_EXEC_PID", str(os.getpid())) != str(os.getpid()):
        return False
    manager = Notify.from_environment(environ)
    manager.unwatched()
    manager.status("torchrun runs; it says in the journal what it waits for")
    manager.ready()
    return manager.listens
