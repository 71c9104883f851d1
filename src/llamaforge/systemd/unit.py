"""What a unit and whoever installs it agree on, and whether systemd runs this very process."""

from __future__ import annotations

import os
from collections.abc import Mapping

RESTART_WISH = "restart-when-idle"
"""A file in the unit's runtime folder that an update leaves: an idle worker ends, to be started
anew."""
CANNOT_HELP = 78
"""EX_CONFIG of sysexits.h; the worker's unit has RestartPreventExitStatus=78."""


def runs_us(environ: Mapping[str, str]) -> bool:
    """True for the main process of a unit, and for nothing that it starts.

    systemd says the process id that it has started (systemd.exec(5), SYSTEMD_EXEC_PID); programs
    that replace themselves, such as numactl and taskset, keep it.
    """
    return environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
