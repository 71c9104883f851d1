"""One place that sets up logging, so that every process writes lines that a person can read.

Processes log to standard error, or, where that is the journal, straight to the journal with the
record's fields. Nothing else configures handlers, and importing this module does not either.
"""

from __future__ import annotations

import logging
import os
import sys

from llamaforge.systemd import journal


def set_up(name: str, *, verbose: bool = False) -> logging.Logger:
    """Sends the records of all `llamaforge.*` loggers to standard error or the journal.

    Args:
        name: what to call this process at the start of each line ("worker", "coordinator").
        verbose: also show DEBUG records.

    Returns:
        The logger `llamaforge.<name>`.
    """
    root = logging.getLogger("llamaforge")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    root.handlers.clear()
    handler: logging.Handler
    if journal.is_standard_error(os.environ):
        handler = journal.JournalHandler(f"llamaforge-{name}")
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    return root.getChild(name)
