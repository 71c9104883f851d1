"""TLS contexts of an identity: TLS 1.3, this fleet's authority and no other, both sides checked.

client(folder)                    # to dial a coordinator or a peer
server(folder, required=False)    # the control port: who has no certificate yet can join there
server(folder)                    # the peer port: nobody without a certificate
"""

from __future__ import annotations

import ssl
from pathlib import Path

from llamaforge.errors import FleetError
from llamaforge.identity.folder import authority_file, identity_file
from llamaforge.identity.names import COORDINATOR_HOST, node_host, person_host

__all__ = [
    "COORDINATOR_HOST",
    "client",
    "newcomer",
    "node_host",
    "person_host",
    "server",
    "stranger",
]


def client(folder: Path | str) -> ssl.SSLContext:
    """The context to dial with. The caller names whom it wants with `server_hostname`.

    Raises:
        FleetError: the identity is missing or broken; names the folder.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _load(context, folder)


def server(folder: Path | str, *, required: bool = True) -> ssl.SSLContext:
    """The context to listen with.

    Args:
        folder: the identity's.
        required: whether a client without a certificate is turned away while it shakes hands;
            a certificate that doesn't stand is turned away in any case.

    Raises:
        FleetError: the identity is missing or broken; names the folder.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    context.num_tickets = 0  # a connection taken up again would skip the check of certificates
    return _load(context, folder)


def newcomer(authority: str) -> ssl.SSLContext:
    """The context of somebody without a certificate who knows the authority already.

    Args:
        authority: its certificate, PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    return context


def stranger() -> ssl.SSLContext:
    """The context of somebody who trusts nobody yet, to ask for the authority's certificate.

    What comes over it is believed only when its fingerprint is the expected one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def load(context: ssl.SSLContext, folder: Path | str) -> None:
    """Reads an identity into a context that is in use: new connections then have the new one.

    Raises:
        FleetError: the identity is missing or broken; names the folder.
    """
    try:
        context.load_cert_chain(identity_file(folder))
        context.load_verify_locations(cafile=authority_file(folder))
    except OSError as why:  # ssl.SSLError is one
        raise FleetError(
            f"the identity in {folder} can't be used: {why}",
            hint="join the fleet again: llamaforge worker join HOST:PORT, or for a person "
            "llamaforge login HOST:PORT",
        ) from why


def _load(context: ssl.SSLContext, folder: Path | str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load(context, folder)
    return context
