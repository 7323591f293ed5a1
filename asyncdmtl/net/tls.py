"""TLS without sockets: contexts from files, and the ciphertext of one connection.

asyncio's own TLS closes a connection whose handshake fails without sending the alert that says why, begins
a handshake with whoever connects, and hides how many bytes it adds. Here the bytes of a connection pass
through a `TLSChannel`: a refused peer is told, limits hold before any cryptography, and every byte counts.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from asyncdmtl.errors import AsyncDMTLError, AuthenticationError, LinkError, UsageError
from asyncdmtl.net.credentials import read_private
from asyncdmtl.protocol.framing import Buffer

# Bytes that are encrypted at once; shorter buffers are joined, so that they share a TLS record.
SLICE = 1 << 20
RECORD = 1 << 14

# What a record of TLS begins with: alert, handshake. A frame of ours begins with a zero.
TLS_TYPES = (0x15, 0x16)
PLAIN_TYPE = 0x00

# Alerts (RFC 8446, 6.2) that speak of who the peer is. Others come from bytes that were damaged on their way.
_WHO = ("certificate", "unknown ca", "access denied")


def server_context(
    certificate: Path | None, key: Path | None, client_ca: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.3 for a server; with `client_ca`, workers must show a certificate that it signed.

    UsageError names the option whose file cannot be used, and what is wrong with it.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # Nobody resumes a session: one without tickets is new, and so is its binding.
    context.num_tickets = 0
    _load_certificate(context, certificate, key)
    if client_ca is not None:
        _load_ca(context, client_ca, "--tls-client-ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def worker_context(ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS 1.3 for a worker that trusts servers whose certificate `ca` signed, and may show its own.

    UsageError names the option whose file cannot be used, and what is wrong with it.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    _load_ca(context, ca, "--tls-ca")
    if certificate is not None or key is not None:
        _load_certificate(context, certificate, key)
    return context


def check_server_name(name: str, option: str) -> str:
    """`name` if a certificate can be checked against it; else UsageError."""
    try:
        if not name.isprintable():
            raise ValueError("not printable")
        _context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, ssl.SSLError) as error:
        raise UsageError(option, "must name a host or an address", name) from error
    return name


class TLSChannel:
    """The TLS of one connection: ciphertext in, plaintext out, and the other way round.

    All methods may raise ssl.SSLError, of which `failure` makes an error of ours; `pending` then holds the
    alert that tells the peer.

    Parameters
    ----------
    context : ssl.SSLContext
    server_name : str or None
        What the server's certificate must be for, at the worker's end; None at the server's.

    Attributes
    ----------
    open : bool
        True once the handshake is done, and plaintext may pass.
    overhead_in, overhead_out : int
        Bytes of ciphertext that came and went, less those of plaintext.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self.open = False
        self.overhead_in = 0
        self.overhead_out = 0

    def feed(self, ciphertext: Buffer) -> None:
        """Take in received bytes, and go on with the handshake if it is not done."""
        self._incoming.write(ciphertext)
        self.overhead_in += len(ciphertext)
        if not self.open:
            self.handshake()

    def handshake(self) -> None:
        """Go on with the handshake, as far as it goes with what was received."""
        try:
            self._object.do_handshake()
            self.open = True
        except ssl.SSLWantReadError:
            pass

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into `buffer`; the count of bytes, 0 if no more can be had."""
        try:
            count = cast(Any, self._object).read(len(buffer), buffer)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return 0
        self.overhead_in -= count
        return int(count)

    def encrypt(self, buffers: Iterable[Buffer]) -> Iterator[Buffer]:
        """The ciphertext of `buffers`, in order, made as it is asked for."""
        short = bytearray()
        for buffer in buffers:
            if len(buffer) < RECORD and len(short) < SLICE:
                short += buffer
                continue
            yield from self._encrypt(memoryview(short))
            yield from self._encrypt(memoryview(buffer))
            short = bytearray()
        yield from self._encrypt(memoryview(short))

    def pending(self) -> bytes:
        """Ciphertext that TLS itself has to send: handshake, alerts."""
        ciphertext = self._outgoing.read()
        self.overhead_out += len(ciphertext)
        return ciphertext

    def end(self) -> bytes:
        """The last ciphertext: it says that no more comes."""
        # Nobody waits for what the peer has to say to this.
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self.pending()

    @property
    def binding(self) -> bytes:
        """Bytes that only the two ends of this very connection know, equal at both: the worker's Finished.

        It is an HMAC of the whole handshake, certificates included, under a key of this connection (RFC 8446,
        4.4.4): one who sits in between and speaks TLS with both has two different ones.
        """
        return self._object.get_channel_binding("tls-unique") or b""

    @property
    def peer_names(self) -> tuple[str, ...]:
        """The names in the peer's checked certificate: common name and DNS names; none if it showed none."""
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
        for start in range(0, len(plaintext), SLICE):
            part = plaintext[start : start + SLICE]
            self._object.write(part)
            ciphertext = self._outgoing.read()
            self.overhead_out += len(ciphertext) - len(part)
            yield ciphertext


def failure(error: ssl.SSLError, peer: str) -> AsyncDMTLError:
    """What a failure of TLS means: AuthenticationError if it is about who the peer is, else LinkError."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationError(f"the certificate of {peer} is not accepted: {error.verify_message}")
    reason = (error.reason or str(error)).lower().replace("_", " ")
    _, alert, told = reason.rpartition("alert ")
    if alert and any(word in told for word in _WHO):
        return AuthenticationError(f"{peer} does not accept this certificate: {told}")
    # What we refuse before there is a certificate to verify is who the peer is, too.
    if reason == "peer did not return a certificate":
        return AuthenticationError(f"{peer} showed no certificate, which --tls-client-ca asks for")
    return LinkError(f"TLS with {peer} failed: {reason}", peer=peer)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _load_certificate(context: ssl.SSLContext, certificate: Path | None, key: Path | None) -> None:
    if certificate is None or key is None:
        lacking = "--tls-cert" if certificate is None else "--tls-key"
        raise UsageError(lacking, "must be given: a certificate and its key belong together", None)
    if b"-----BEGIN CERTIFICATE-----" not in _read(certificate, "--tls-cert"):
        raise UsageError("--tls-cert", "must be a certificate in PEM", str(certificate))
    read_private(key, "--tls-key")

    def ask() -> str:
        raise UsageError("--tls-key", "must not be encrypted: there is nobody to ask", str(key))

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


def _load_ca(context: ssl.SSLContext, ca: Path, option: str) -> None:
    _read(ca, option)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise UsageError(option, "must be certificates in PEM", str(ca)) from error


def _read(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(option, f"must be readable ({error.strerror})", str(file)) from error
