"""A certificate for one run, by which processes that no authority has certified encrypt their connections."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asyncdmtl.net.tls import server_context, worker_context

# The days for which the certificate holds: longer than any run. A day before today is included, because the
# clocks of hosts differ.
_DAYS = 365


@dataclass(frozen=True)
class RunCertificate:
    """A self-signed certificate for one host, and its key, both in PEM.

    The key stays in the process that made it; only `certificate` is passed on.
    """

    certificate: bytes
    _key: bytes = field(repr=False)

    @classmethod
    def make(cls, host: str) -> RunCertificate:
        """A new certificate for a name or an address."""
        # Imported here, since it takes a tenth of a second and only these runs need it.
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "asyncdmtl run")])
        try:
            subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            subject = x509.DNSName(host)
        today = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - timedelta(days=1))
            .not_valid_after(today + timedelta(days=_DAYS))
            .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(made.public_bytes(serialization.Encoding.PEM), private)

    def server_context(self) -> ssl.SSLContext:
        """The TLS of the server."""
        with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as folder:
            certificate, key = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
            certificate.write_bytes(self.certificate)
            key.touch(mode=0o600)
            key.write_bytes(self._key)
            return server_context(certificate, key)


def trusting(certificate: bytes) -> ssl.SSLContext:
    """The TLS of a worker that accepts this certificate alone."""
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as folder:
        file = Path(folder) / "certificate.pem"
        file.write_bytes(certificate)
        return worker_context(file)
