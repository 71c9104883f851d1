"""Which files of `packaging/mail` go where, and its settings with one address filled in."""

from __future__ import annotations

import re

from llamaforge.errors import UserError

PROGRAMS = {
    "/usr/local/libexec/llamaforge/mail": ("mail/mail.py", 0o755),
    "/usr/local/libexec/llamaforge/restarts": ("mail/restarts.py", 0o755),
    "/usr/local/lib/systemd/system/llamaforge-mail@.service": (
        "mail/llamaforge-mail@.service",
        0o644,
    ),
}
"""Path on the machine to the shipped file and its mode."""


def settings(example: str, address: str) -> str:
    """The example of mail.conf with `to` set.

    Raises:
        UserError: the example has no such line; the installation is damaged.
    """
    text, found = re.subn(r"^to = .*$", lambda _: f"to = {address}", example, count=1, flags=re.M)
    if not found:
        raise UserError(
            "the shipped mail.conf.example has no line `to = …`", hint="install LlamaForge again"
        )
    return text
