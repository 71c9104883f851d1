"""A join token as text: `lf1.ID.SECRET.AUTHORITY`, one word without spaces.

It says which token of the coordinator it is, proves that its holder was given it, and names the
authority of the fleet by its fingerprint: whoever joins checks that before the secret is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets

import msgspec

from llamaforge.errors import UserError

SECRET_BYTES = 32
_FORM = re.compile(r"lf1\.([0-9a-f]{12})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """One token."""

    id: str
    """Which token of its coordinator; no secret."""
    secret: str
    authority: str
    """Fingerprint of the fleet's authority: SHA-256, in hex."""

    def __repr__(self) -> str:
        return f"JoinToken({self.id})"  # a secret that is printed by accident is one no more

    @classmethod
    def make(cls, authority: str) -> JoinToken:
        """A new one."""
        return cls(
            id=secrets.token_hex(6),
            secret=secrets.token_urlsafe(SECRET_BYTES),
            authority=authority,
        )

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Reads a token.

        Raises:
            UserError: it is none; the text itself is never repeated.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise UserError(
                f"that is not a join token ({len(text.strip())} characters; "
                "one begins with lf1. and has 104)",
                hint="make one on the coordinator's machine: llamaforge coordinator token",
            )
        try:
            authority = base64.urlsafe_b64decode(found[3] + "=").hex()
        except binascii.Error as why:
            raise UserError("that is not a join token: its end is damaged") from why
        return cls(id=found[1], secret=found[2], authority=authority)

    @property
    def text(self) -> str:
        """The whole token."""
        authority = base64.urlsafe_b64encode(bytes.fromhex(self.authority)).decode().rstrip("=")
        return f"lf1.{self.id}.{self.secret}.{authority}"

    @property
    def digest(self) -> str:
        """What the coordinator keeps instead of the secret: SHA-256, in hex."""
        return hashlib.sha256(self.secret.encode()).hexdigest()
