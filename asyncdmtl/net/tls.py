"""TLS without sockets: contexts from files, and the ciphertext of one connection.

asyncio's own TLS has three disadvantages. If a handshake fails, it closes the connection without sending the
alert. It starts the handshake before the program can refuse the connection. It does not count the bytes that
it adds. Here the bytes of a connection pass through a `TLSChannel`: alerts are sent, limits hold before any
cryptography, and every byte is counted.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from asyncdmtl.errors import AsyncDMTLError, AuthenticationError, LinkError, UsageError
from asyncdmtl.net.credentials import read_private
from asyncdmtl.protocol.framing import Buffer

log = logging.getLogger(__name__)

# Bytes that are encrypted at a time, which limits the memory for ciphertext that waits for the socket.
ENCRYPTED_BYTES = 1 << 20

# Bytes of a full TLS record. Shorter buffers are joined before they are encrypted, so that they share a
# record.
RECORD_BYTES = 1 << 14

# The first bytes of TLS records: their type, from change_cipher_spec to heartbeat, and the major version (RFC
# 8446, section 5.1). The first frame in plaintext has no body, so that its second byte is another one.
_RECORD_TYPES, _RECORD_VERSION = range(20, 25), 3

# Words in TLS alerts about the peer's identity (RFC 8446, section 6.2). Other alerts are caused by corrupted
# bytes.
_IDENTITY_ALERTS = ("certificate", "unknown ca", "access denied")


def server_context(
    certificate: Path | None, key: Path | None, client_ca: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.3 for a server; with `client_ca`, workers must show a certificate that it signed.

    Raises
    ------
    UsageError
        A file cannot be used; the error names its option and the rule that it breaks.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # Without tickets no session is resumed: every handshake is a full one, which shows the certificate that
    # proofs are bound to.
    context.num_tickets = 0
    context.use(*_check_pair(certificate, key))
    if client_ca is not None:
        _load_ca(context, client_ca, "--tls-client-ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def worker_context(ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS 1.3 for a worker that trusts certificates which `ca` signed, and may show its own.

    Raises
    ------
    UsageError
        A file cannot be used; the error names its option and the rule that it breaks.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    _load_ca(context, ca, "--tls-ca")
    if certificate is not None or key is not None:
        context.use(*_check_pair(certificate, key))
    return context


def check_server_name(name: str, option: str) -> str:
    """The name, if a certificate can be verified for it; else UsageError, which names `option`."""
    try:
        if not name.isprintable():
            raise ValueError("not printable")
        _context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, ssl.SSLError) as error:
        raise UsageError(option, "must name a host or an address", name) from error
    return name


def is_plaintext(start: memoryview) -> bool:
    """Whether a peer does not speak TLS, by the first bytes that it sent, at least one."""
    return start[0] not in _RECORD_TYPES or (len(start) > 1 and start[1] != _RECORD_VERSION)


class TLSChannel:
    """The TLS of one connection: ciphertext in, plaintext out, and the other way round.

    All methods may raise ssl.SSLError, which `tls_error` translates; `pending` then returns the alert for the
    peer.

    Parameters
    ----------
    context : ssl.SSLContext
    server_name : str or None
        At the worker's end, the name that the server's certificate must have; None at the server's end.

    Attributes
    ----------
    open : bool
        True once the handshake is done, and plaintext may pass.
    overhead_in, overhead_out : int
        The bytes that encryption added to all received and to all sent plaintext.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        # The server's certificate; at the worker's end it is the one that the handshake shows.
        self._certificate = b""
        if isinstance(context, RenewingContext):
            context.renew()
            self._certificate = context.certificate
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self.open = False
        self.overhead_in = 0
        self.overhead_out = 0

    def feed(self, ciphertext: Buffer) -> None:
        """Take in received ciphertext, and go on with the handshake if it is not done."""
        self._incoming.write(ciphertext)
        self.overhead_in += len(ciphertext)
        if not self.open:
            self.handshake()

    def handshake(self) -> None:
        """Go on with the handshake as far as the received bytes allow."""
        try:
            self._object.do_handshake()
            self.open = True
        except ssl.SSLWantReadError:
            pass

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into `buffer`; return the count of decrypted bytes, 0 if more ciphertext is needed."""
        try:
            count = cast(Any, self._object).read(len(buffer), buffer)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return 0
        self.overhead_in -= count
        return int(count)

    def encrypt(self, buffers: Iterable[Buffer]) -> Iterator[Buffer]:
        """The ciphertext of some buffers, in their order; pieces are encrypted as the iterator advances."""
        short = bytearray()
        for buffer in buffers:
            if len(buffer) < RECORD_BYTES and len(short) < ENCRYPTED_BYTES:
                short += buffer
                continue
            yield from self._encrypt(memoryview(short))
            yield from self._encrypt(memoryview(buffer))
            short = bytearray()
        yield from self._encrypt(memoryview(short))

    def pending(self) -> bytes:
        """The ciphertext of TLS's own messages that wait to be sent: handshakes and alerts."""
        ciphertext = self._outgoing.read()
        self.overhead_out += len(ciphertext)
        return ciphertext

    def end(self) -> bytes:
        """The last ciphertext, which says that no more follows."""
        # The peer's answer is not awaited.
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self.pending()

    @property
    def binding(self) -> bytes:
        """The channel binding tls-server-end-point (RFC 5929, section 4) of this connection.

        It is a hash of the certificate by which the server has proven its identity in the handshake. An
        attacker between the two ends would have to show the worker a certificate of its own, so that the
        worker's binding is another one than the server's.

        The binding of RFC 9266, tls-exporter, which would also tell two connections to one server apart, is
        not offered by Python's ssl module; fresh nonces of both ends do that in a proof.

        Raises
        ------
        AuthenticationError
            No certificate is known, as before the handshake: a proof must not be sent without a binding.
        """
        certificate = self._certificate
        if self.open and not self._object.server_side:
            certificate = self._object.getpeercert(binary_form=True) or b""
        if not self.open or not certificate:
            raise AuthenticationError("TLS shows no certificate of the server, and no proof is sent without")
        return _end_point(certificate)

    @property
    def peer_names(self) -> tuple[str, ...]:
        """The names in the peer's verified certificate: common name and DNS names; none without one."""
        certificate = cast("dict[str, Any]", self._object.getpeercert() or {})
        names = [
            value
            for relative in certificate.get("subject", ())
            for key, value in relative
            if key == "commonName"
        ]
        names += [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
        return tuple(dict.fromkeys(names))

    def _encrypt(self, plaintext: memoryview) -> Iterator[Buffer]:
        for start in range(0, len(plaintext), ENCRYPTED_BYTES):
            part = plaintext[start : start + ENCRYPTED_BYTES]
            self._object.write(part)
            ciphertext = self._outgoing.read()
            self.overhead_out += len(ciphertext) - len(part)
            yield ciphertext


def tls_error(error: ssl.SSLError, peer: str) -> AsyncDMTLError:
    """Translate an error of TLS: AuthenticationError if it is about an identity, else LinkError."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationError(f"the certificate of {peer} is not accepted: {error.verify_message}")
    reason = (error.reason or str(error)).lower().replace("_", " ")
    _, alert, told = reason.rpartition("alert ")
    if told == "certificate required":
        return AuthenticationError(
            f"{peer} asks for a certificate of this end: give --tls-cert and --tls-key"
        )
    if alert and any(word in told for word in _IDENTITY_ALERTS):
        return AuthenticationError(f"{peer} does not accept this certificate: {told}")
    # A missing certificate is about the peer's identity, too, though no certificate was verified.
    if reason == "peer did not return a certificate":
        return AuthenticationError(f"{peer} showed no certificate, which --tls-client-ca asks for")
    return LinkError(f"TLS with {peer} failed: {reason}", peer=peer)


class RenewingContext(ssl.SSLContext):
    """A context that reads its certificate and key again when the files have changed.

    A renewed certificate is thus used from the next connection on. Files that cannot be used are reported in
    the log, and the context keeps the certificate that it has.

    Attributes
    ----------
    certificate : bytes
        The certificate of this end in DER; empty if it has none.
    """

    certificate: bytes = b""
    _files: tuple[Path, Path] | None = None
    _seen: tuple[tuple[int, int, int], ...] = ()

    def use(self, certificate: Path, key: Path) -> None:
        """Read a certificate and its key, and remember where they are; UsageError as `server_context`."""
        self.certificate = _load_certificate(self, certificate, key)
        self._files, self._seen = (certificate, key), _stamps(certificate, key)

    def renew(self) -> None:
        """Read the files again if they have changed."""
        if self._files is None or (seen := _stamps(*self._files)) == self._seen:
            return
        self._seen = seen
        try:
            # Loading a certificate without its key would leave the context without a usable pair.
            _load_certificate(_context(self.protocol), *self._files)
            self.certificate = _load_certificate(self, *self._files)
            log.info("read the renewed certificate %s", self._files[0])
        except UsageError as error:
            log.warning("the renewed certificate cannot be used, the one before it stays: %s", error)


def _stamps(*files: Path) -> tuple[tuple[int, int, int], ...]:
    """Facts about files that change when one is written or replaced; zeros for a missing file."""
    found = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def _context(protocol: int) -> RenewingContext:
    context = RenewingContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _check_pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path]:
    if certificate is None or key is None:
        lacking = "--tls-cert" if certificate is None else "--tls-key"
        raise UsageError(lacking, "must be given: a certificate and its key belong together", None)
    return certificate, key


def _end_point(certificate: bytes) -> bytes:
    """The hash of a certificate in DER that RFC 5929 asks for (section 4.1).

    It is made by the function of the certificate's signature; by SHA-256 if that is MD5 or SHA-1, or if the
    signature names none (Ed25519), which the RFC leaves open.
    """
    # Imported here, since it takes a tenth of a second and only connections with proofs need it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    used = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    weak = used is None or isinstance(used, hashes.MD5 | hashes.SHA1)
    hasher = hashes.Hash(hashes.SHA256() if weak or used is None else used)
    hasher.update(certificate)
    return hasher.finalize()


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> bytes:
    """Load a certificate and its key into a context; return the certificate in DER."""
    pem = _read(certificate, "--tls-cert")
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UsageError("--tls-cert", "must be a certificate in PEM", str(certificate))
    read_private(key, "--tls-key")

    def ask() -> str:
        raise UsageError(
            "--tls-key",
            "must not be encrypted: a process without a terminal cannot ask for its password",
            str(key),
        )

    try:
        context.load_cert_chain(certificate, key, password=ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError("--tls-key", f"must be the key of {certificate}", str(key)) from error
        raise UsageError(
            "--tls-cert and --tls-key",
            "must be a certificate and its key in PEM",
            (str(certificate), str(key)),
        ) from error
    if _read(certificate, "--tls-cert") != pem:
        raise UsageError("--tls-cert", "must not change while it is read", str(certificate))
    end = "-----END CERTIFICATE-----"
    first = pem.decode("latin-1").partition("-----BEGIN CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(first[1] + first[2].partition(end)[0] + end)


def _load_ca(context: ssl.SSLContext, ca: Path, option: str) -> None:
    _read(ca, option)
    # A certificate in the file is trusted even if another CA signed it: it may be that of an intermediate CA,
    # or of the server itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise UsageError(option, "must be certificates in PEM", str(ca)) from error


def _read(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(option, f"must be readable ({error.strerror})", str(file)) from error
