"""How the kernel counts its kills for want of memory in a control group (cgroups(7))."""

from __future__ import annotations

import re


def kills(events: str) -> int | None:
    """The count in `memory.events` (version 2) or `memory.oom_control` (version 1).

    Args:
        events: the file's text; "" where there is none.

    Returns:
        The kills since the group was made; None where the text has no count.
    """
    found = re.search(r"^oom_kill (\d+)$", events, re.MULTILINE)
    return int(found[1]) if found else None
