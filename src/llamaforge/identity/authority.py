"""The fleet's certificate authority: made at its coordinator's first start, and kept.

Its key never leaves the coordinator's state folder. A certificate says nothing but the name that
the coordinator decided on; of a request only the public key is taken.
"""

from __future__ import annotations

import logging
import secrets
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from llamaforge.errors import FleetError, UserError
from llamaforge.identity import folder, request
from llamaforge.identity.fingerprint import fingerprint
from llamaforge.identity.names import COORDINATOR_HOST
from llamaforge.identity.validity import validity_of

FOLDER = "authority"
"""In the coordinator's state folder."""
AUTHORITY_DAYS = 3650
SERVER_DAYS = 90
CERTIFICATE_DAYS = 365
"""Of nodes and people; renewed after a third."""
BACKDATED = timedelta(days=1)
"""So that a machine whose clock is behind takes a new certificate."""
_EPOCH_BITS = 64

log = logging.getLogger("llamaforge.coordinator")


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was signed just now."""

    certificate: str
    """PEM."""
    serial: int
    expires: float
    """Unix time in seconds."""


def new_epoch() -> str:
    """Random, in hex: what the serial numbers of one joining and all its renewals begin with.

    Whoever joins again gets another one, and all earlier certificates of that name are refused.
    """
    return f"{secrets.randbits(_EPOCH_BITS - 1) | 1 << (_EPOCH_BITS - 2):016x}"


def epoch_of(serial: int) -> str:
    """The epoch that a serial number begins with."""
    return f"{serial >> _EPOCH_BITS:016x}"


class Authority:
    """The key that signs, and its certificate. Make it with `open`."""

    def __init__(self, home: Path, key: ec.EllipticCurvePrivateKey, own: x509.Certificate) -> None:
        self.home, self._key, self._own = home, key, own
        self.certificate = own.public_bytes(serialization.Encoding.PEM).decode()
        """PEM."""
        self.fingerprint = fingerprint(self.certificate)
        """SHA-256 of its certificate, in hex."""

    @classmethod
    def open(cls, home: Path) -> Authority:
        """Reads the authority in a folder, or makes one there.

        Raises:
            FleetError: its files are damaged; a new one would strand every node.
            OSError: the folder can't be written.
        """
        if not folder.complete(home):
            _make(home)
            log.info("made the fleet's certificate authority in %s", home)
        try:
            text = folder.identity_file(home).read_bytes()
            key = serialization.load_pem_private_key(text, password=None)
            own = x509.load_pem_x509_certificate(text)
        except (ValueError, TypeError, UnsupportedAlgorithm) as why:
            raise FleetError(
                f"the fleet's authority in {home} is damaged: {why}",
                hint=f"restore {home} from a backup; without it, remove it and join every node "
                "again: llamaforge coordinator token",
            ) from why
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(home, key, own)

    def issue(
        self, host: str, text: str, *, epoch: str, server: bool, days: float = CERTIFICATE_DAYS
    ) -> Issued:
        """Signs a certificate for the key of a request.

        Args:
            host: the one name in it; see `identity.names`.
            text: the request, PEM; only its key counts, and that it was made with that key.
            epoch: see `new_epoch`.
            server: whether others may dial its holder.
            days: how long it is good for.

        Raises:
            UserError: the request can't be used.
        """
        return self._sign(host, _public_key(text), epoch, days, client=True, server=server)

    def own_identity(self) -> Path:
        """The folder of the coordinator's own identity, renewed where it is due.

        Raises:
            OSError: it can't be written.
        """
        home = self.home / "coordinator"
        if not self._is_fresh(home):
            made = request.make()
            key = _public_key(made.request)
            issued = self._sign(
                COORDINATOR_HOST, key, new_epoch(), SERVER_DAYS, client=False, server=True
            )
            folder.save(
                home, key=made.key, certificate=issued.certificate, authority=self.certificate
            )
        return home

    def _is_fresh(self, home: Path) -> bool:
        if not folder.complete(home):
            return False
        try:
            same = folder.authority_file(home).read_text() == self.certificate
            valid = validity_of(home)
        except FleetError:
            return False
        return same and valid.begins < time.time() < valid.renewal()

    def _sign(
        self,
        host: str,
        key: ec.EllipticCurvePublicKey,
        epoch: str,
        days: float,
        *,
        client: bool,
        server: bool,
    ) -> Issued:
        serial = int(epoch, 16) << _EPOCH_BITS | secrets.randbits(_EPOCH_BITS)
        now = datetime.now(timezone.utc)
        ends = min(now + timedelta(days=days), self._own.not_valid_after_utc)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH] * client + [
            ExtendedKeyUsageOID.SERVER_AUTH
        ] * server
        signed = (
            _builder(host, key, serial, self._own.subject, now - BACKDATED, ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        text = signed.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(certificate=text, serial=serial, expires=ends.timestamp())


def _make(home: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "LlamaForge fleet authority")])
    now = datetime.now(timezone.utc)
    ends = now + timedelta(days=AUTHORITY_DAYS)
    own = (
        _builder("", key.public_key(), secrets.randbits(120), name, now - BACKDATED, ends, name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate = own.public_bytes(serialization.Encoding.PEM).decode()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    folder.save(home, key=text, certificate=certificate, authority=certificate)


def _builder(
    host: str,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    issuer: x509.Name,
    begins: datetime,
    ends: datetime,
    subject: x509.Name | None = None,
) -> x509.CertificateBuilder:
    if subject is None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _public_key(text: str) -> ec.EllipticCurvePublicKey:
    try:
        made = x509.load_pem_x509_csr(text.encode())
        key = made.public_key()
        right = made.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as why:
        raise UserError(f"the certificate request can't be read: {why}") from why
    if not right:
        raise UserError("the certificate request was not made with the key in it")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise UserError("the certificate request has a key of another kind than EC P-256")
    return key
