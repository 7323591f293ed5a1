from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from support.certificates import Authority, Files

from asyncdmtl.blinding.agreement import Agreement, Offer
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.errors import AuthenticationError, UsageError
from asyncdmtl.net.member_certificates import CertificateProofs

GROUP = GroupKey(bytes(range(32)), "run")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def proofs(authority: Authority, *names: str, expired: bool = False) -> CertificateProofs:
    return CertificateProofs(authority.ca, *authority.issue(*names, expired=expired))


def self_signed(folder: Path, key: CertificateIssuerPrivateKeyTypes) -> Files:
    """A certificate for w0 that is its own authority."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "w0")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else SHA256())
    )
    files = Files(folder / "w0.pem", folder / "w0.key")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def test_workers_with_certificates_of_one_authority_agree(authority: Authority) -> None:
    giver, taker = (Agreement("run", name, proofs(authority, name)) for name in ("w0", "w1"))
    assert taker.taken(giver.offer, giver.gift(GROUP, taker.offer)).secrets == GROUP.secrets


def test_common_names_count_as_at_the_server(authority: Authority) -> None:
    files = authority.issue(common_name="a worker")
    one = Agreement("run", "a worker", CertificateProofs(authority.ca, *files))
    assert one.taken(one.offer, one.gift(GROUP, one.offer)).secrets == GROUP.secrets


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-384", "Ed25519"],
)  # fmt: skip
def test_keys_of_all_kinds_sign(tmp_path: Path, key: CertificateIssuerPrivateKeyTypes) -> None:
    _agrees_with_itself(self_signed(tmp_path, key))


def test_rsa_keys_sign(tmp_path: Path) -> None:
    _agrees_with_itself(self_signed(tmp_path, rsa.generate_private_key(65537, 1024)))


def _agrees_with_itself(files: Files) -> None:
    one = Agreement("run", "w0", CertificateProofs(files.certificate, *files))
    assert one.taken(one.offer, one.gift(GROUP, one.offer)).secrets == GROUP.secrets
    changed = replace(one.offer, public=bytes(32))
    with pytest.raises(AuthenticationError, match="worker 'w0' did not prove that it has the key"):
        one.gift(GROUP, changed)


def test_no_other_certificate_proves_membership(authority: Authority, tmp_path: Path) -> None:
    own = proofs(authority, "w0")
    other = Authority(tmp_path / "other")
    for complaint, name, theirs in (
        ("showed the group a certificate for w1", "w2", proofs(authority, "w1")),
        ("that is not valid now", "w1", proofs(authority, "w1", expired=True)),
        ("which no authority in --group-ca has signed itself", "w1", proofs(other, "w1")),
    ):
        taker = Agreement("run", name, theirs)
        with pytest.raises(AuthenticationError, match=f"worker '{name}' .*{complaint}"):
            Agreement("run", "w0", own).gift(GROUP, taker.offer)


def test_a_certificate_without_its_key_proves_nothing(authority: Authority) -> None:
    own, other = proofs(authority, "w0"), Agreement("run", "w1", proofs(authority, "w1"))
    for offer, complaint in (
        (replace(other.offer, proof=own.prove(other.offer.facts("run"))), "has the key of its name"),
        (replace(other.offer, certificate=b"no certificate"), "showed the group no certificate"),
        (Offer("w1", other.offer.public, b""), "showed the group no certificate"),
    ):
        with pytest.raises(AuthenticationError, match=complaint):
            own.check(offer, offer.facts("run"))


def test_files_that_do_not_fit_are_errors_of_their_options(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue("w0"), authority.issue("w1")
    text, elsewhere = tmp_path / "text", Authority(tmp_path / "other")
    text.touch(mode=0o600)
    odd = self_signed(tmp_path, ed448.Ed448PrivateKey.generate())
    for files, complaint in (
        ((text, *one), "--group-ca must be certificates in PEM"),
        ((authority.ca, text, one.key), "--tls-cert must be a certificate in PEM"),
        ((authority.ca, one.certificate, text), "--tls-key must be an unencrypted key in PEM"),
        ((authority.ca, one.certificate, other.key), "--tls-key must be the key of --tls-cert"),
        ((elsewhere.ca, *one), "--tls-cert must be signed by an authority in --group-ca itself"),
    ):
        with pytest.raises(UsageError, match=complaint):
            CertificateProofs(*files)
    with pytest.raises(UsageError, match="--tls-key must be on an elliptic curve, Ed25519 or RSA"):
        CertificateProofs(odd.certificate, *odd).prove(b"facts")
