"""From when until when a certificate is good, read without a library.

The worker asks this to know when to renew; the library that makes certificates would cost an
idle worker more memory than all the rest of it. Only what is needed of DER (X.690) is read, and
only certificates whose signature TLS checks are read.
"""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from llamaforge.errors import FleetError
from llamaforge.identity.folder import identity_file

_SEQUENCE, _INTEGER, _UTC_TIME, _TIME, _VERSION = 0x30, 0x02, 0x17, 0x18, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Validity(msgspec.Struct, frozen=True, kw_only=True):
    """Unix times in seconds."""

    begins: float
    ends: float

    def renewal(self) -> float:
        """When to ask for the next certificate: after a third of this one's life."""
        return self.begins + (self.ends - self.begins) / 3


def validity_of(folder: Path | str) -> Validity:
    """The validity of an identity's certificate.

    Raises:
        FleetError: there is none, or it can't be read.
    """
    path = identity_file(folder)
    try:
        text = path.read_text()
        return read(ssl.PEM_cert_to_DER_cert(text[text.index(_BEGIN) : text.index(_END)] + _END))
    except (OSError, ValueError, IndexError) as why:
        raise FleetError(f"the certificate in {path} can't be read: {why}") from why


def read(der: bytes) -> Validity:
    """The validity of a certificate in DER form.

    Raises:
        ValueError, IndexError: it is not a certificate.
    """
    inside = _open(der, 0, _SEQUENCE)  # certificate
    inside = _open(der, inside, _SEQUENCE)  # what is signed
    if der[inside] == _VERSION:
        inside = _after(der, inside)
    for kind in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
        _open(der, inside, kind)
        inside = _after(der, inside)
    begins = _open(der, inside, _SEQUENCE)
    return Validity(begins=_time(der, begins), ends=_time(der, _after(der, begins)))


def _length(der: bytes, at: int) -> tuple[int, int]:
    """The length of the element at `at`, and where its content begins."""
    first = der[at + 1]
    if first < 0x80:
        return first, at + 2
    count = first & 0x7F
    return int.from_bytes(der[at + 2 : at + 2 + count], "big"), at + 2 + count


def _open(der: bytes, at: int, kind: int) -> int:
    if der[at] != kind:
        raise ValueError(f"element {der[at]:#x} where {kind:#x} should be")
    return _length(der, at)[1]


def _after(der: bytes, at: int) -> int:
    length, begins = _length(der, at)
    return begins + length


def _time(der: bytes, at: int) -> float:
    length, begins = _length(der, at)
    text = der[begins : begins + length].decode("ascii")
    if der[at] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif der[at] != _TIME:
        raise ValueError(f"element {der[at]:#x} where a time should be")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
