"""TLS in memory: both ends of a channel, without sockets."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from support.certificates import Authority

from asyncdmtl.errors import AuthenticationError, LinkError, UsageError
from asyncdmtl.net.tls import (
    ENCRYPTED_BYTES,
    TLSChannel,
    check_server_name,
    server_context,
    tls_error,
    worker_context,
)
from asyncdmtl.protocol.framing import Buffer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


def connect(server: TLSChannel, worker: TLSChannel) -> None:
    """Pass bytes on until neither end sends any more; raise an error once the other end has its alert."""
    worker.handshake()
    error: ssl.SSLError | None = None
    ends = [(worker, server), (server, worker)]
    quiet = 0
    while quiet < 2:
        source, target = ends[0]
        ends.reverse()
        sent = source.pending()
        quiet = 0 if sent else quiet + 1
        try:
            if sent:
                target.feed(sent)
                target.read_into(memoryview(bytearray(1)))
        except ssl.SSLError as problem:
            error = error or problem
    if error is not None:
        raise error


def channels(authority: Authority) -> tuple[TLSChannel, TLSChannel]:
    server = TLSChannel(server_context(*authority.issue("127.0.0.1")))
    worker = TLSChannel(worker_context(authority.ca), "127.0.0.1")
    connect(server, worker)
    assert server.open
    assert worker.open
    return server, worker


def self_signed(folder: Path, algorithm: hashes.SHA384 | None) -> tuple[tuple[Path, Path], x509.Certificate]:
    """Files of a certificate for "host" and its key; of Ed25519 without a hash function."""
    key = (
        ed25519.Ed25519PrivateKey.generate() if algorithm is None else ec.generate_private_key(ec.SECP256R1())
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, today - timedelta(1), today + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("host")]), critical=False)
        .sign(key, algorithm)
    )
    certificate, private = folder / "host.pem", folder / "host.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return (certificate, private), made


def read(channel: TLSChannel) -> bytes:
    buffer = memoryview(bytearray(1 << 16))
    parts = []
    while count := channel.read_into(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


def test_plaintext_survives_encryption_and_every_byte_is_counted(authority: Authority) -> None:
    server, worker = channels(authority)
    handshake = server.overhead_in, server.overhead_out
    assert handshake == (worker.overhead_out, worker.overhead_in)
    body = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    parts: list[Buffer] = [b"head", body[:1_500_000].data, body[1_500_000:].data, b"tail"]
    ciphertext = b"".join(worker.encrypt(parts))
    assert b"head" not in ciphertext
    received = b""
    for start in range(0, len(ciphertext), 10_007):
        server.feed(ciphertext[start : start + 10_007])
        received += read(server)
    assert received == b"".join(map(bytes, parts))
    overhead = len(ciphertext) - len(received)
    assert 0 < overhead < 0.002 * len(received)
    assert server.overhead_in - handshake[0] == worker.overhead_out - handshake[0] == overhead


def test_small_buffers_share_a_record(authority: Authority) -> None:
    _, worker = channels(authority)
    assert len(b"".join(worker.encrypt([b"x"] * 100))) == 100 + 22


def test_ciphertext_is_made_as_it_is_asked_for(authority: Authority) -> None:
    _, worker = channels(authority)
    begun = worker.overhead_out
    body = np.zeros(8 * ENCRYPTED_BYTES, np.uint8).data
    ciphertext = worker.encrypt([body])
    assert worker.overhead_out == begun
    assert len(next(ciphertext)) == ENCRYPTED_BYTES + worker.overhead_out - begun


def test_only_tls_1_3_is_spoken(authority: Authority) -> None:
    old = worker_context(authority.ca)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError) as caught:
        connect(TLSChannel(server_context(*authority.issue("127.0.0.1"))), TLSChannel(old, "127.0.0.1"))
    assert isinstance(tls_error(caught.value, "w0"), LinkError)


def test_the_binding_is_the_hash_of_the_servers_certificate(authority: Authority) -> None:
    server, worker = channels(authority)
    with (authority.ca.parent / "127.0.0.1.pem").open() as file:
        shown = x509.load_pem_x509_certificate(file.read().encode())
    assert isinstance(shown.signature_hash_algorithm, hashes.SHA256)
    assert server.binding == worker.binding == shown.fingerprint(hashes.SHA256())
    other, _ = channels(authority)
    assert other.binding != server.binding


@pytest.mark.parametrize(
    ("signed_with", "hashed_with"),
    [(hashes.SHA384(), hashes.SHA384()), (None, hashes.SHA256())],
    ids=["SHA-384", "Ed25519, which names no hash"],
)
def test_the_binding_is_hashed_as_the_certificate_is_signed(
    tmp_path: Path, signed_with: hashes.SHA384 | None, hashed_with: hashes.HashAlgorithm
) -> None:
    files, made = self_signed(tmp_path, signed_with)
    server, worker = TLSChannel(server_context(*files)), TLSChannel(worker_context(files[0]), "host")
    connect(server, worker)
    assert server.binding == worker.binding == made.fingerprint(hashed_with)


def test_there_is_no_binding_before_the_handshake(authority: Authority) -> None:
    for channel in (
        TLSChannel(server_context(*authority.issue("127.0.0.1"))),
        TLSChannel(worker_context(authority.ca), "127.0.0.1"),
    ):
        with pytest.raises(AuthenticationError, match="no certificate of the server"):
            _ = channel.binding


def test_a_changed_byte_is_a_lost_connection(authority: Authority) -> None:
    server, worker = channels(authority)
    (ciphertext,) = worker.encrypt([b"hello"])
    damaged = bytearray(ciphertext)
    damaged[-1] ^= 1
    server.feed(bytes(damaged))
    with pytest.raises(ssl.SSLError) as caught:
        read(server)
    assert isinstance(tls_error(caught.value, "w0"), LinkError)
    worker.feed(server.pending())
    with pytest.raises(ssl.SSLError) as caught:
        read(worker)
    assert isinstance(tls_error(caught.value, "the server"), LinkError)


def test_the_end_is_told(authority: Authority) -> None:
    server, worker = channels(authority)
    server.feed(worker.end())
    assert read(server) == b""


def test_a_certificate_of_another_name_is_refused(authority: Authority, stranger: Authority) -> None:
    good = authority.issue("127.0.0.1", "localhost")
    cases = [
        (good, authority.ca, "example.org", "Hostname mismatch"),
        (good, authority.ca, "127.0.0.2", "IP address mismatch"),
        (good, stranger.ca, "127.0.0.1", "unable to get local issuer certificate"),
        (authority.issue("127.0.0.1", expired=True), authority.ca, "127.0.0.1", "has expired"),
    ]
    for files, ca, name, complaint in cases:
        server, worker = TLSChannel(server_context(*files)), TLSChannel(worker_context(ca), name)
        with pytest.raises(ssl.SSLError) as caught:
            connect(server, worker)
        error = tls_error(caught.value, "the server")
        assert isinstance(error, AuthenticationError)
        assert str(error).startswith("the certificate of the server is not accepted: ")
        assert complaint in str(error)
        assert not worker.open


def test_workers_must_show_a_certificate_where_a_client_ca_is_given(
    authority: Authority, stranger: Authority
) -> None:
    demanding = server_context(*authority.issue("127.0.0.1"), authority.ca)
    cases = [
        ((), "showed no certificate", "asks for a certificate of this end: give --tls-cert and --tls-key"),
        (stranger.issue("w0"), "unable to get local issuer", "unknown ca"),
        (authority.issue("w0", expired=True), "has expired", "certificate expired"),
    ]
    for files, seen_by_server, told_to_worker in cases:
        server, worker = TLSChannel(demanding), TLSChannel(worker_context(authority.ca, *files), "127.0.0.1")
        worker.handshake()
        server.feed(worker.pending())
        worker.feed(server.pending())
        with pytest.raises(ssl.SSLError) as caught:
            server.feed(worker.pending())
        assert isinstance(tls_error(caught.value, "w0"), AuthenticationError)
        assert seen_by_server in str(tls_error(caught.value, "w0"))
        worker.feed(server.pending())
        with pytest.raises(ssl.SSLError) as caught:
            read(worker)
        assert isinstance(tls_error(caught.value, "the server"), AuthenticationError)
        assert told_to_worker in str(tls_error(caught.value, "the server"))


def test_the_names_of_a_worker_are_those_of_its_certificate(authority: Authority) -> None:
    own = authority.issue("w0.example.org", common_name="w0")
    server = TLSChannel(server_context(*authority.issue("127.0.0.1"), authority.ca))
    connect(server, TLSChannel(worker_context(authority.ca, *own), "127.0.0.1"))
    assert server.peer_names == ("w0", "w0.example.org")
    server, _ = channels(authority)
    assert server.peer_names == ()


def test_bad_files_are_named(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("127.0.0.1")
    _, other_key = authority.issue("localhost")
    text = tmp_path / "text"
    text.write_text("no certificate")
    text.chmod(0o600)
    encrypted, shared = tmp_path / "encrypted", tmp_path / "shared"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.touch(mode=0o600)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    shared.write_bytes(key.read_bytes())
    shared.chmod(0o644)
    cases: list[tuple[Callable[[], ssl.SSLContext], str]] = [
        (lambda: server_context(tmp_path / "absent", key), r"--tls-cert must be readable \(No such file"),
        (lambda: server_context(certificate, tmp_path / "absent"), r"--tls-key must be readable"),
        (lambda: server_context(text, key), "--tls-cert must be a certificate in PEM, got .*text"),
        (lambda: server_context(certificate, text), "must be a certificate and its key in PEM"),
        (lambda: server_context(certificate, other_key), "--tls-key must be the key of .*127.0.0.1"),
        (lambda: server_context(certificate, shared), "--tls-key must be readable by its owner only"),
        (lambda: server_context(certificate, encrypted), "--tls-key must not be encrypted"),
        (lambda: server_context(certificate, key, text), "--tls-client-ca must be certificates in PEM"),
        (lambda: worker_context(tmp_path / "absent"), "--tls-ca must be readable"),
        (lambda: worker_context(text), "--tls-ca must be certificates in PEM, got .*text"),
        (lambda: worker_context(authority.ca, certificate), "--tls-key must be given"),
        (lambda: worker_context(authority.ca, None, key), "--tls-cert must be given"),
    ]
    for make, complaint in cases:
        with pytest.raises(UsageError, match=complaint):
            make()


@pytest.mark.parametrize("name", ["", ".example.org", "a\0b", "x" * 300])
def test_bad_server_names(name: str) -> None:
    with pytest.raises(UsageError, match="--tls-server-name must name a host"):
        check_server_name(name, "--tls-server-name")
    assert check_server_name("example.org", "--tls-server-name") == "example.org"


def shown_serial(server: ssl.SSLContext, ca: Path) -> str:
    """The serial number of the certificate that a server shows in a new connection."""
    ends = TLSChannel(server), TLSChannel(worker_context(ca), "127.0.0.1")
    connect(*ends)
    certificate = ends[1]._object.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_a_certificate_that_is_renewed_on_disk_is_shown_without_a_restart(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = tmp_path / "server.pem", tmp_path / "server.key"

    def put(names: tuple[str, ...]) -> None:
        for source, target in zip(authority.issue(*names), files, strict=True):
            new = target.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_bytes(source.read_bytes())
            new.replace(target)

    put(("127.0.0.1", "first"))
    context = server_context(*files)
    first = shown_serial(context, authority.ca)
    assert shown_serial(context, authority.ca) == first
    put(("127.0.0.1", "second"))
    second = shown_serial(context, authority.ca)
    assert second != first
    # A certificate is not used before its key has been replaced, too.
    files[0].write_bytes(authority.issue("127.0.0.1", "third").certificate.read_bytes())
    assert shown_serial(context, authority.ca) == second
    files[0].write_text("no certificate")
    assert shown_serial(context, authority.ca) == second
    assert "the one before it stays" in caplog.text


def test_the_servers_own_certificate_may_be_trusted_alone(authority: Authority, stranger: Authority) -> None:
    files = authority.issue("127.0.0.1")
    connect(TLSChannel(server_context(*files)), TLSChannel(worker_context(files.certificate), "127.0.0.1"))
    other = stranger.issue("127.0.0.1")
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        connect(
            TLSChannel(server_context(*other)), TLSChannel(worker_context(files.certificate), "127.0.0.1")
        )
