"""The chain: every commit names its parent, so that two histories can be told apart."""

from __future__ import annotations

import hashlib

GENESIS = "0" * 64
"""The parent of a job's first commit."""


def link(parent: str, *, generation: int, step: int, what: str) -> str:
    """SHA-256 that ties a commit to everything before it.

    Args:
        parent: the previous link, or `GENESIS`.
        generation: the membership that made the commit.
        step: steps committed, this one included.
        what: the commit's own facts, in a fixed text form.
    """
    return hashlib.sha256(f"{parent} {generation} {step} {what}".encode()).hexdigest()
