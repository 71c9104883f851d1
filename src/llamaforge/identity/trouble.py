"""Why TLS failed, in words that name the clock, the fleet or the certificate, and what to do."""

from __future__ import annotations

import ssl
import time

_BEFORE, _AFTER = 9, 10
"""OpenSSL's verify codes (x509_vfy.h): not yet valid, expired."""
_NAME = 62
"""Its verify code for a certificate that names somebody else."""


def explain(error: BaseException | None, *, now: float | None = None) -> str | None:
    """Says what a failed connection means for a person; None where TLS is not the reason.

    Args:
        error: what was raised; its causes are searched too.
        now: Unix time in seconds; the clock's by default.
    """
    found = _tls(error)
    if found is None:
        return None
    clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if isinstance(found, ssl.SSLCertVerificationError):
        return _unverified(found, clock)
    reason = found.reason or ""
    if "EXPIRED" in reason:
        return (
            f"the other side takes this certificate for expired; here it is {clock}: look at both "
            "clocks (timedatectl), or join the fleet again"
        )
    if "UNKNOWN_CA" in reason:
        return "it belongs to another fleet, whose authority did not sign this certificate"
    if "CERTIFICATE" in reason or "BAD_CERTIFICATE" in reason:
        return (
            f"the other side refuses this certificate ({reason.lower()}); here it is {clock}: "
            "look at both clocks (timedatectl), or join the fleet again"
        )
    if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason or "RECORD" in reason:
        return "what listens there doesn't speak TLS: update it, if it is an older LlamaForge"
    if "PROTOCOL_VERSION" in reason:
        return "the other side doesn't speak TLS 1.3"
    return f"no secure connection: {reason.lower().replace('_', ' ') or found}"


def _unverified(error: ssl.SSLCertVerificationError, clock: str) -> str:
    if error.verify_code in (_BEFORE, _AFTER):
        when = "not valid yet" if error.verify_code == _BEFORE else "expired"
        return (
            f"its certificate is {when}, or the clock is wrong: here it is {clock}; "
            "look at the clocks of both machines: timedatectl"
        )
    if error.verify_code == _NAME:
        return "what answers there is not who it should be: its certificate names somebody else"
    return (
        "it belongs to another fleet: its certificate was not signed by the authority that this "
        f"machine joined ({error.verify_message})"
    )


def _tls(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error in an error or behind it; aiohttp's own ones only wrap the real one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        if isinstance(inner, BaseException):
            error = inner
        elif isinstance(error, ssl.SSLError):
            return error
        else:
            error = error.__cause__ or error.__context__
    return None
