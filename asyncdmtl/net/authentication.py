"""Who may take part: both ends of a greeting prove who they are.

A worker proves that it knows the secret of its name, that its certificate is for its name, or both; the
server that its certificate is for its host, that it knows the secret, or both.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from asyncdmtl.errors import AuthenticationError, UsageError
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.credentials import OPTION, VARIABLE, Credentials, ProofTranscript, find_credentials
from asyncdmtl.net.lockout import Lockout
from asyncdmtl.net.tls import TLSChannel, check_server_name, server_context, worker_context
from asyncdmtl.protocol.messages.joining import PROOF_NONCE_BYTES
from asyncdmtl.protocol.messages.registry import Challenge, Hello, Proof, Welcome

LIMIT = "--silence-timeout"


@dataclass(frozen=True)
class ServerSecurity:
    """What a server shows, and what it wants to see; by default nothing.

    Attributes
    ----------
    credentials : Credentials or None
        The secrets of those who may take part.
    tls : ssl.SSLContext or None
        From `server_context`; it says whether workers must show a certificate.
    """

    credentials: Credentials | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def from_files(
        cls,
        secret_file: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_client_ca: Path | None = None,
    ) -> ServerSecurity:
        """From the options of the same names, and the environment; UsageError names what cannot be used."""
        credentials = find_credentials(secret_file)
        if tls_cert is None and tls_key is None:
            if tls_client_ca is not None:
                raise UsageError("--tls-client-ca", "needs --tls-cert and --tls-key", str(tls_client_ca))
            return cls(credentials)
        return cls(credentials, server_context(tls_cert, tls_key, tls_client_ca))

    @property
    def wants_certificates(self) -> bool:
        """Whether workers must show a certificate for their name."""
        return self.tls is not None and self.tls.verify_mode is ssl.CERT_REQUIRED

    @property
    def authenticates(self) -> bool:
        """Whether workers must prove who they are."""
        return self.credentials is not None or self.wants_certificates

    @property
    def channels(self) -> Callable[[], TLSChannel] | None:
        """What makes the TLS of each connection, if there is to be any."""
        context = self.tls
        return None if context is None else lambda: TLSChannel(context)

    def check_exposure(self, host: str, insecure: bool) -> str | None:
        """A warning if listening on `host` lets others read or take part; UsageError unless `insecure`."""
        if is_loopback(host) or (self.tls is not None and self.authenticates):
            return None
        if not insecure:
            raise UsageError(
                "--listen",
                "must be a loopback address unless --insecure is given, or both TLS (--tls-cert, --tls-key) "
                "and credentials (--secret-file or --tls-client-ca)",
                host,
            )
        risks = ["read this run"] if self.tls is None else []
        risks += [] if self.authenticates else ["take part in it"]
        return f"listening on {host} with --insecure: anyone on the network can {' and '.join(risks)}"


@dataclass(frozen=True)
class WorkerSecurity:
    """What a worker shows, and what it wants to see; by default nothing.

    Attributes
    ----------
    secret : bytes or None
        What the server must know as well.
    tls : ssl.SSLContext or None
        From `worker_context`.
    server_name : str or None
        What the server's certificate must be for; None for the host that the worker connects to.
    """

    secret: bytes | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @classmethod
    def from_files(
        cls,
        name: str,
        secret_file: Path | None = None,
        tls_ca: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_server_name: str | None = None,
    ) -> WorkerSecurity:
        """From the options of the same names, and the environment; UsageError names what cannot be used."""
        credentials = find_credentials(secret_file)
        secret = None if credentials is None else credentials.of(name)
        if tls_ca is None:
            for option, value in (("cert", tls_cert), ("key", tls_key), ("server-name", tls_server_name)):
                if value is not None:
                    raise UsageError(f"--tls-{option}", "needs --tls-ca, which turns TLS on", str(value))
            return cls(secret)
        if tls_server_name is not None:
            check_server_name(tls_server_name, "--tls-server-name")
        return cls(secret, worker_context(tls_ca, tls_cert, tls_key), tls_server_name)

    def channels(self, host: str) -> Callable[[], TLSChannel] | None:
        """What makes the TLS of each connection to `host`; UsageError if no certificate can be for that."""
        context = self.tls
        if context is None:
            return None
        name = self.server_name or check_server_name(host, "--connect")
        return lambda: TLSChannel(context, name)

    def check_exposure(self, host: str, insecure: bool) -> str | None:
        """A warning if `host` is reached in plaintext; UsageError unless `insecure`."""
        if is_loopback(host) or self.tls is not None:
            return None
        if not insecure:
            raise UsageError(
                "--connect", "must be a loopback address unless --tls-ca or --insecure is given", host
            )
        return f"connecting to {host} with --insecure: anyone on the network can read this run or change it"


UNSECURED_SERVER, UNSECURED_WORKER = ServerSecurity(), WorkerSecurity()


class Authenticator:
    """Finds out who the workers are that come to a server.

    Parameters
    ----------
    run : str
        The run's name.
    security : ServerSecurity
    gate : Lockout
        What keeps out those who failed too often.
    seconds : float
        For a whole greeting, TLS handshake included.
    """

    def __init__(self, run: str, security: ServerSecurity, gate: Lockout, seconds: float) -> None:
        self._run = run
        self._security = security
        self._gate = gate
        self._seconds = seconds

    async def identify(self, connection: Connection) -> tuple[Hello, bytes]:
        """The greeting of a worker that is who it says; and the server's own proof, for its welcome.

        Raises
        ------
        AuthenticationError
            The worker could not prove who it is; or others could not so often that it has to wait.
        WaitError, LinkError, RemoteProtocolError, PeerError
            The greeting came to no end.
        """
        end = asyncio.get_running_loop().time() + self._seconds
        name: str | None = None
        try:
            hello = await connection.receive((Hello,), self._seconds, LIMIT)
            name = hello.name
            if not self._security.authenticates:
                return hello, b""
            self._check_wait(connection, name)
            self._check_certificate(connection, name)
            own = await self._challenge(connection, name, end)
        except _LockedOutError:
            raise
        except AuthenticationError:
            self._gate.failed(name, connection.host)
            raise
        self._gate.succeeded(name, connection.host)
        return hello, own

    def _check_wait(self, connection: Connection, name: str) -> None:
        if (wait := self._gate.wait(name, connection.host)) > 0:
            connection.worker_may_return = True
            raise _LockedOutError(f"the name {name!r} is locked out for {wait:.3g} s after failed attempts")

    def _check_certificate(self, connection: Connection, name: str) -> None:
        if self._security.wants_certificates and name not in connection.certified:
            raise AuthenticationError(
                f"{connection.peer} showed a certificate for {', '.join(connection.certified) or 'nobody'}"
            )

    async def _challenge(self, connection: Connection, name: str, end: float) -> bytes:
        """Let a worker prove that it knows the secret of its name; the proof that this server does."""
        if self._security.credentials is None:
            return b""
        loop = asyncio.get_running_loop()
        nonce = secrets.token_bytes(PROOF_NONCE_BYTES)
        await connection.send(Challenge(self._run, nonce), end - loop.time(), LIMIT)
        answer = await connection.receive((Proof,), end - loop.time(), LIMIT)
        secret = self._security.credentials.expected_of(name)
        greeting = ProofTranscript(self._run, name, nonce, answer.nonce, connection.binding)
        if not hmac.compare_digest(greeting.proof(secret, "worker"), answer.proof):
            raise AuthenticationError(f"{connection.peer} did not prove that it knows the secret of its name")
        return greeting.proof(secret, "server")


async def greet_server(connection: Connection, hello: Hello, secret: bytes | None, seconds: float) -> Welcome:
    """Greet a server, prove that this worker knows the secret, and see that the server does.

    Raises
    ------
    AuthenticationError
        The server did not prove it, or did not ask; or it asks and there is no secret.
    WaitError, LinkError, RemoteProtocolError, PeerError
        The greeting came to no end.
    """
    await connection.send(hello, seconds, LIMIT)
    asked = await connection.receive((Welcome, Challenge), seconds, LIMIT)
    if secret is None:
        if isinstance(asked, Welcome):
            return asked
        raise AuthenticationError(
            f"{connection.peer} asks for a secret: give {OPTION}, or {VARIABLE} in the environment"
        )
    if not isinstance(asked, Challenge):
        raise AuthenticationError(f"{connection.peer} does not ask for the secret that it should know")
    nonce = secrets.token_bytes(PROOF_NONCE_BYTES)
    greeting = ProofTranscript(asked.run, hello.name, asked.nonce, nonce, connection.binding)
    await connection.send(Proof(nonce, greeting.proof(secret, "worker")), seconds, LIMIT)
    welcome = await connection.receive((Welcome,), seconds, LIMIT)
    if welcome.run != asked.run or not hmac.compare_digest(greeting.proof(secret, "server"), welcome.proof):
        raise AuthenticationError(f"{connection.peer} did not prove that it knows the secret")
    return welcome


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach `host`, or be reached under that name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _LockedOutError(AuthenticationError):
    """Not one more failed attempt."""
