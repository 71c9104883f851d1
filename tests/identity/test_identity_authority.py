"""The authority: kept, exact about names, and readable by nobody else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from llamaforge.errors import FleetError, UserError
from llamaforge.identity import folder, request
from llamaforge.identity.authority import Authority, epoch_of, new_epoch
from llamaforge.identity.names import COORDINATOR_HOST, node_host
from llamaforge.identity.validity import read, validity_of

DAY = 86400


def names(certificate: x509.Certificate) -> list[str]:
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return list(alternative.value.get_values_for_type(x509.DNSName))


def test_it_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "authority"
    first = Authority.open(home)
    assert Authority.open(home).fingerprint == first.fingerprint
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for path in home.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    folder.identity_file(tmp_path).write_text("rubbish")
    with pytest.raises(FleetError, match="is damaged"):
        Authority.open(tmp_path)
    assert folder.identity_file(tmp_path).read_text() == "rubbish"


def test_only_the_key_of_a_request_is_taken(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    wish = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COORDINATOR_HOST)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(COORDINATOR_HOST)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    epoch = new_epoch()
    issued = authority.issue(node_host("a"), wish, epoch=epoch, server=True)
    signed = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert names(signed) == ["a.node.llamaforge.internal"]
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert signed.public_key() == key.public_key()
    assert epoch_of(signed.serial_number) == epoch


def test_a_person_can_not_be_dialled(tmp_path: Path) -> None:
    issued = Authority.open(tmp_path).issue(
        "b.person.llamaforge.internal", request.make().request, epoch=new_epoch(), server=False
    )
    signed = x509.load_pem_x509_certificate(issued.certificate.encode())
    uses = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("text", "words"),
    [("nonsense", "can't be read"), ("é", "can't be read")],
)
def test_a_request_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Authority.open(tmp_path).issue("a", text, epoch=new_epoch(), server=False)


def test_a_request_for_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    wish = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    text = wish.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(UserError, match="EC P-256"):
        Authority.open(tmp_path).issue("a", text, epoch=new_epoch(), server=False)


def test_the_coordinators_own_certificate_is_renewed_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.open(tmp_path)
    home = authority.own_identity()
    before = folder.identity_file(home).read_text()
    authority.own_identity()
    assert folder.identity_file(home).read_text() == before
    due = validity_of(home).renewal() + 1
    monkeypatch.setattr("time.time", lambda: due)
    authority.own_identity()
    assert folder.identity_file(home).read_text() != before


def test_validity_is_what_the_library_reads(tmp_path: Path) -> None:
    issued = Authority.open(tmp_path).issue(
        "a", request.make().request, epoch=new_epoch(), server=False, days=9000
    )
    signed = x509.load_pem_x509_certificate(issued.certificate.encode())
    valid = read(signed.public_bytes(serialization.Encoding.DER))
    assert valid.begins == signed.not_valid_before_utc.timestamp()
    assert valid.ends == signed.not_valid_after_utc.timestamp()
    assert valid.begins < valid.renewal() < valid.ends
