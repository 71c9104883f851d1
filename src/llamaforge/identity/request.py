"""A new private key and the request for its certificate, made in a process of its own.

    python -m llamaforge.identity.request

prints one JSON object, `{"key": PEM, "request": PEM}`, into a pipe. A process of its own: the
library that does it costs more memory than an idle worker may have.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from llamaforge.errors import FleetError

SECONDS = 60.0
"""How long the child may take: it needs 0.2 s, but may wait for a busy processor."""


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A private key and the request that is made with it, both PEM."""

    key: str
    request: str

    def __repr__(self) -> str:
        return "KeyRequest()"  # never in a log


def make() -> KeyRequest:
    """Makes both here. A key on the curve P-256; the request names nobody: its answer does."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return KeyRequest(
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        request=request.sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode(),
    )


async def make_elsewhere() -> KeyRequest:
    """Makes both in a child process.

    Raises:
        FleetError: the child failed; says how.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, trouble = await asyncio.wait_for(child.communicate(), SECONDS)
    except BaseException:
        if child.returncode is None:
            child.kill()
        raise
    try:
        return msgspec.json.decode(said, type=KeyRequest)
    except msgspec.MsgspecError as why:
        last = trouble.decode(errors="replace").strip().rpartition("\n")[2]
        raise FleetError(f"no key could be made: {last or why}") from why


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(make()))
