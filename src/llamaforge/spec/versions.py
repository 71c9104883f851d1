"""Which part of a version decides whether two nodes can work together, said once for all.

A micro release of Python and a build tag of torch (`+cpu`) make no difference to how files and
messages are read. Whether they change the bits of a result is not inferred from names: ranks
measure it with a canary slice.
"""

from __future__ import annotations


def decisive(what: str, version: str) -> str:
    """`3.11` of Python 3.11.7, `2.13.0` of torch 2.13.0+cpu; all of any other version.

    Args:
        what: `python`, `torch` or another name, in any case.
        version: as the package tells it; "" where it isn't known.
    """
    if what.lower() == "python":
        return ".".join(version.split(".")[:2])
    return version.partition("+")[0] if what.lower() == "torch" else version


def differ(what: str, one: str, other: str) -> bool:
    """Whether two versions differ in what decides."""
    return decisive(what, one) != decisive(what, other)
