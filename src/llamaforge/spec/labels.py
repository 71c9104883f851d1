"""Labels of a node, which jobs can ask for: `gpu, rack=3`."""

from __future__ import annotations

import re

from llamaforge.errors import SpecError

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=/-]{0,62}", re.ASCII)
MOST = 64


def parse_labels(text: str | None, *, source: str = "the list of labels") -> tuple[str, ...]:
    """Reads a list with commas between; None and "" name none. Each counts once, in order.

    Args:
        text: the list.
        source: where it is from, for messages: a flag or variable.

    Raises:
        SpecError: a label has other characters than those allowed, or there are too many.
    """
    labels = dict.fromkeys(filter(None, (part.strip() for part in (text or "").split(","))))
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise SpecError(
                f"{source} names {label!r}",
                hint="a label has letters, digits and . _ - = /, 63 at most: gpu, rack=3",
            )
    if len(labels) > MOST:
        raise SpecError(f"{source} names {len(labels)} labels; {MOST} are the most")
    return tuple(sorted(labels))
