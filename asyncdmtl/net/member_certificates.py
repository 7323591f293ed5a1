"""Proofs by which workers show each other, by their certificates, that they are members of one group."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from asyncdmtl.blinding.agreement import Offer
from asyncdmtl.errors import AuthenticationError, UsageError
from asyncdmtl.net.credentials import read_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
    from cryptography.x509 import Certificate

# The option that names the certificates of the group's authorities.
GROUP_CA_OPTION = "--group-ca"


class CertificateProofs:
    """Proofs by certificates that an authority of the group has signed itself, for the names of workers.

    The key of a certificate is on an elliptic curve, Ed25519 or RSA.

    Parameters
    ----------
    ca : Path
        The certificates of the authorities, PEM.
    certificate : Path
        This worker's certificate, PEM; others behind it in the file are not used.
    key : Path
        Its key, PEM, unencrypted.

    Attributes
    ----------
    certificate : bytes
        This worker's certificate, DER.

    Raises
    ------
    UsageError
        A file cannot be used, or no authority has signed the certificate.
    """

    # The library is imported in functions, since it takes a tenth of a second and few runs need it.

    def __init__(self, ca: Path, certificate: Path, key: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

        try:
            self._authorities = x509.load_pem_x509_certificates(ca.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(GROUP_CA_OPTION, f"must be certificates in PEM ({error})", str(ca)) from None
        try:
            own, *_ = x509.load_pem_x509_certificates(certificate.read_bytes())
        except (OSError, ValueError) as error:
            rule = f"must be a certificate in PEM ({error})"
            raise UsageError("--tls-cert", rule, str(certificate)) from None
        try:
            self._key: PrivateKeyTypes = load_pem_private_key(read_private(key, "--tls-key"), None)
        except (TypeError, ValueError):
            raise UsageError("--tls-key", "must be an unencrypted key in PEM", str(key)) from None
        if self._key.public_key() != own.public_key():
            raise UsageError("--tls-key", "must be the key of --tls-cert", str(key))
        if not self._is_signed(own):
            rule = f"must be signed by an authority in {GROUP_CA_OPTION} itself"
            raise UsageError("--tls-cert", rule, str(certificate))
        self.certificate: bytes = own.public_bytes(Encoding.DER)

    def __repr__(self) -> str:
        return "CertificateProofs"

    def prove(self, facts: bytes) -> bytes:
        """The signature of some facts."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(facts, ec.ECDSA(hashes.SHA256()))
        if isinstance(self._key, rsa.RSAPrivateKey):
            salt = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
            return self._key.sign(facts, salt, hashes.SHA256())
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(facts)
        raise UsageError(
            "--tls-key", "must be on an elliptic curve, Ed25519 or RSA", type(self._key).__name__
        )

    def check(self, offer: Offer, facts: bytes) -> None:
        """Raise AuthenticationError unless the offer's worker signed the facts with a key of its name."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        worker = f"worker {offer.name!r}"
        try:
            shown = x509.load_der_x509_certificate(offer.certificate)
            if offer.name not in (names := _names(shown)):
                told = ", ".join(names) or "no name"
                raise AuthenticationError(f"{worker} showed the group a certificate for {told}")
            if not shown.not_valid_before_utc <= datetime.now(UTC) <= shown.not_valid_after_utc:
                raise AuthenticationError(f"{worker} showed the group a certificate that is not valid now")
            if not self._is_signed(shown):
                told = f"which no authority in {GROUP_CA_OPTION} has signed itself"
                raise AuthenticationError(f"{worker} showed the group a certificate {told}")
            _verify(shown.public_key(), offer.proof, facts)
        except InvalidSignature:
            raise AuthenticationError(f"{worker} did not prove that it has the key of its name") from None
        except ValueError as error:
            raise AuthenticationError(f"{worker} showed the group no certificate: {error}") from None

    def _is_signed(self, certificate: Certificate) -> bool:
        """Whether an authority of the group has signed the certificate itself."""
        from cryptography.exceptions import InvalidSignature

        for authority in self._authorities:
            try:
                certificate.verify_directly_issued_by(authority)
            except (InvalidSignature, TypeError, ValueError):
                continue
            return True
        return False


def _names(certificate: Certificate) -> tuple[str, ...]:
    """The common names and the DNS names in a certificate, as a server reads them (`TLSChannel`)."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names = [str(entry.value) for entry in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        pass
    return tuple(dict.fromkeys(names))


def _verify(key: CertificatePublicKeyTypes, signature: bytes, facts: bytes) -> None:
    """Raise InvalidSignature unless the owner of the key has signed the facts."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, facts, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPublicKey):
        salt = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        key.verify(signature, facts, salt, hashes.SHA256())
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, facts)
    else:
        raise InvalidSignature
