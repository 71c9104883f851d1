"""The one error that the lab raises."""

from __future__ import annotations


class LabError(RuntimeError):
    """The lab could not do what it was asked; the text names the thing and what to do."""
