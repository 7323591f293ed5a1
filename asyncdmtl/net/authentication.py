"""Proofs of identity: workers prove their names to a server, and the server proves itself to them.

A worker proves that it knows the secret of its name, that its certificate is for its name, or both. A server
proves that its certificate is for its host, that it knows the secret, or both.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asyncdmtl.errors import AuthenticationError, UsageError
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.credentials import (
    SECRET_OPTION,
    SECRET_VARIABLE,
    Credentials,
    ProofTranscript,
    find_credentials,
)
from asyncdmtl.net.failed_proofs import FailedProofs
from asyncdmtl.net.strangers import Standing, Strangers
from asyncdmtl.net.tls import TLSChannel, check_server_name, server_context, worker_context
from asyncdmtl.protocol.messages.joining import PROOF_NONCE_BYTES
from asyncdmtl.protocol.messages.registry import Challenge, Hello, Proof, Standby, Welcome

# The option that limits each wait of a greeting.
GREETING_OPTION = "--silence-timeout"


@dataclass(frozen=True)
class ServerSecurity:
    """The proofs of identity that a server gives and requires; by default none.

    Attributes
    ----------
    credentials : Credentials or None
        The secrets of the workers that may take part.
    tls : ssl.SSLContext or None
        The result of `server_context`, which also determines whether workers must show a certificate.
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
        """The security from the command-line options of the same names.

        The secret may also come from the environment variable ASYNCDMTL_SECRET.

        Raises
        ------
        UsageError
            A file cannot be used, or an option needs another one; the error names the option.
        """
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
        """Whether workers must prove their names."""
        return self.credentials is not None or self.wants_certificates

    @property
    def channels(self) -> Callable[[], TLSChannel] | None:
        """A function that makes the TLS of one connection; None for plaintext."""
        context = self.tls
        return None if context is None else lambda: TLSChannel(context)

    def check_exposure(self, host: str, insecure: bool) -> str | None:
        """A warning if strangers could read the run or take part in it when the server listens on `host`.

        Raises
        ------
        UsageError
            Strangers could do so, and `insecure` is false.
        """
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
    """The proofs of identity that a worker gives and requires; by default none.

    Attributes
    ----------
    secret : bytes or None
        The secret of the worker's name, which the server must know as well.
    tls : ssl.SSLContext or None
        The result of `worker_context`.
    server_name : str or None
        The name that the server's certificate must have; None for the host that the worker connects to.
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
        """The security of the worker `name` from the command-line options of the same names.

        The secret may also come from the environment variable ASYNCDMTL_SECRET.

        Raises
        ------
        UsageError
            A file cannot be used, or an option needs another one; the error names the option.
        """
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
        """A function that makes the TLS of one connection to `host`; None for plaintext.

        Raises
        ------
        UsageError
            No certificate can be verified for `host`.
        """
        context = self.tls
        if context is None:
            return None
        name = self.server_name or check_server_name(host, "--connect")
        return lambda: TLSChannel(context, name)

    def check_exposure(self, host: str, insecure: bool) -> str | None:
        """A warning if the worker would speak plaintext to `host` over a network.

        Raises
        ------
        UsageError
            It would, and `insecure` is false.
        """
        if is_loopback(host) or self.tls is not None:
            return None
        if not insecure:
            raise UsageError(
                "--connect", "must be a loopback address unless --tls-ca or --insecure is given", host
            )
        return f"connecting to {host} with --insecure: anyone on the network can read this run or change it"

    def check_exposures(
        self, addresses: Sequence[tuple[str, int]], insecure: bool, peer_listen: str = "none"
    ) -> list[str | None]:
        """As `check_exposure` for the host of each address, and `check_peer_exposure`."""
        peers = self.check_peer_exposure(peer_listen, insecure)
        return [*(self.check_exposure(host, insecure) for host, _ in addresses), peers]

    def check_peer_exposure(self, address: str, insecure: bool) -> str | None:
        """A warning if other workers would take rows from `address` in plaintext over a network.

        Raises
        ------
        UsageError
            They would, and `insecure` is false; or `address` is neither empty, `none`, nor HOST:PORT.
        """
        if address in ("", "none"):
            return None
        host, _ = parse_address(address, "--peer-listen")
        if is_loopback(host) or self.tls is not None:
            return None
        if not insecure:
            raise UsageError(
                "--peer-listen", "must be a loopback address unless --tls-ca or --insecure is given", address
            )
        return f"listening on {host} with --insecure: anyone on the network can read this run"


# The security of a server that neither gives nor requires a proof.
UNSECURED_SERVER = ServerSecurity()

# The security of a worker that neither gives nor requires a proof.
UNSECURED_WORKER = WorkerSecurity()


class StandbyOrdered(Exception):  # noqa: N818 - no error
    """The server makes a stream of jobs, and has asked the worker to stand by."""


class Authenticator:
    """Verifies the names of the workers that connect to a server.

    Parameters
    ----------
    run : str
        The run's name.
    security : ServerSecurity
    failed : FailedProofs
        The counts of failed proofs, by which answers are delayed.
    strangers : Strangers
        The connections that have not joined, with the standing of each.
    seconds : float
        The limit of a whole greeting, including the TLS handshake.

    Attributes
    ----------
    run : str
    """

    def __init__(
        self,
        run: str,
        security: ServerSecurity,
        failed: FailedProofs,
        strangers: Strangers[Connection],
        seconds: float,
    ) -> None:
        self.run = run
        self._security = security
        self._failed = failed
        self._strangers = strangers
        self._seconds = seconds

    async def identify(self, connection: Connection, hello: Hello | None = None) -> tuple[Hello, bytes]:
        """Receive a worker's greeting, unless it has been received, and verify its name.

        Returns
        -------
        hello : Hello
            The worker's greeting.
        proof : bytes
            The server's own proof, which its welcome carries; empty if there is no secret.

        Raises
        ------
        AuthenticationError
            The worker did not prove its name. After several failures from its address, this is raised with a
            delay.
        WaitError, LinkError, RemoteProtocolError, PeerError
            The greeting was not completed.
        """
        end = asyncio.get_running_loop().time() + self._seconds
        try:
            if hello is None:
                hello = await connection.receive((Hello,), self._seconds, GREETING_OPTION)
            self._strangers.rise(connection, Standing.GREETED)
            if not self._security.authenticates:
                return hello, b""
            self._check_certificate(connection, hello.name)
            own = await self._challenge(connection, hello.name, end)
        except AuthenticationError:
            await asyncio.sleep(self._failed.failed(connection.link.host))
            raise
        self._failed.succeeded(connection.link.host)
        self._strangers.rise(connection, Standing.PROVEN, hello.name)
        return hello, own

    def _check_certificate(self, connection: Connection, name: str) -> None:
        certified = connection.link.certified
        if self._security.wants_certificates and name not in certified:
            shown = ", ".join(certified) or "no name"
            raise AuthenticationError(f"{connection.peer} showed a certificate for {shown}")

    async def _challenge(self, connection: Connection, name: str, end: float) -> bytes:
        """Verify that a worker knows the secret of its name; return the server's own proof of this secret."""
        if self._security.credentials is None:
            return b""
        loop = asyncio.get_running_loop()
        nonce = secrets.token_bytes(PROOF_NONCE_BYTES)
        await connection.send(Challenge(self.run, nonce), end - loop.time(), GREETING_OPTION)
        answer = await connection.receive((Proof,), end - loop.time(), GREETING_OPTION)
        secret = self._security.credentials.expected_of(name)
        transcript = ProofTranscript(self.run, name, nonce, answer.nonce, connection.link.binding)
        if not hmac.compare_digest(transcript.proof(secret, "worker"), answer.proof):
            raise AuthenticationError(f"{connection.peer} did not prove that it knows the secret of its name")
        return transcript.proof(secret, "server")


async def greet_server(connection: Connection, hello: Hello, secret: bytes | None, seconds: float) -> Welcome:
    """Greet a server. If there is a secret, both ends prove that they know it.

    Raises
    ------
    StandbyOrdered
        The server, which has proven the same, asks the worker to stand by.
    AuthenticationError
        The server did not prove that it knows the secret, or does not ask for a proof although there is a
        secret, or asks for one although there is none.
    WaitError, LinkError, RemoteProtocolError, PeerError
        The greeting was not completed.
    """
    await connection.send(hello, seconds, GREETING_OPTION)
    asked: Welcome | Standby | Challenge
    asked = await connection.receive((Welcome, Standby, Challenge), seconds, GREETING_OPTION)
    if secret is None:
        if not isinstance(asked, Challenge):
            return _welcomed(asked)
        places = f"{SECRET_OPTION}, or {SECRET_VARIABLE} in the environment"
        raise AuthenticationError(f"{connection.peer} asks for a secret: give {places}")
    if not isinstance(asked, Challenge):
        raise AuthenticationError(f"{connection.peer} does not ask for the secret that it should know")
    nonce = secrets.token_bytes(PROOF_NONCE_BYTES)
    transcript = ProofTranscript(asked.run, hello.name, asked.nonce, nonce, connection.link.binding)
    await connection.send(Proof(nonce, transcript.proof(secret, "worker")), seconds, GREETING_OPTION)
    welcome: Welcome | Standby
    welcome = await connection.receive((Welcome, Standby), seconds, GREETING_OPTION)
    if welcome.run != asked.run or not hmac.compare_digest(transcript.proof(secret, "server"), welcome.proof):
        raise AuthenticationError(f"{connection.peer} did not prove that it knows the secret")
    return _welcomed(welcome)


def _welcomed(answer: Welcome | Standby) -> Welcome:
    """The server's welcome; StandbyOrdered if it is none."""
    if isinstance(answer, Standby):
        raise StandbyOrdered
    return answer


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine under an address that no other machine can reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
