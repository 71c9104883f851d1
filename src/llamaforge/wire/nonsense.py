"""Keeps nonsense out of the log: aiohttp writes a traceback for every request that is not HTTP.

Anybody who reaches a port could fill the journal with them.
"""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError


def quiet(log: logging.Logger) -> logging.Logger:
    """A logger below `log` for an HTTP server, without what strangers can cause at will."""
    child = log.getChild("http")
    child.filters.clear()
    child.addFilter(lambda record: not _is_nonsense(record))
    return child


def _is_nonsense(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        if isinstance(error, HttpProcessingError):
            return True
        error = error.__cause__
    return False
