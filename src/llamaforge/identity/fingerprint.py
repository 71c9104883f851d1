"""The fingerprint of an authority: what a join token is bound to, and what a person compares."""

from __future__ import annotations

import hashlib
import ssl


def fingerprint(certificate: str) -> str:
    """SHA-256 of a certificate's DER form, in hex.

    Raises:
        ValueError: it is not a certificate in PEM.
    """
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.strip() + "\n")).hexdigest()
