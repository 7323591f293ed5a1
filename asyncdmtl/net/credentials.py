"""Secrets: reading them, and proofs by which an end shows that it knows one without revealing it.

A secret is read from a file that only its owner, or a group of this process or of root, may read, or from
the environment. No option contains it, and no error shows it: errors name its source.
"""

from __future__ import annotations

import codecs
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgpack

from asyncdmtl.documents import parse_document
from asyncdmtl.errors import UsageError
from asyncdmtl.protocol.messages.base import Role
from asyncdmtl.protocol.messages.joining import PROOF_NONCE_BYTES, VERSION

# The environment variable that holds the secret of all workers.
SECRET_VARIABLE = "ASYNCDMTL_SECRET"

# The option that names a file of secrets.
SECRET_OPTION = "--secret-file"

# The environment variable that holds the secret of the workers of a blind run.
GROUP_SECRET_VARIABLE = "ASYNCDMTL_GROUP_SECRET"

# The option that names a file with that secret.
GROUP_SECRET_OPTION = "--group-secret-file"

# The fewest bytes of a secret. An attacker with a recorded proof can try secrets offline, so that there must
# be too many to try.
MIN_SECRET_BYTES = 16

# The most bytes of a file with secrets or a key.
MAX_FILE_BYTES = 1 << 20


class Credentials:
    """The secrets of workers: one for all names, or one for each.

    Parameters
    ----------
    shared : bytes or None
        The secret of every name.
    by_name : mapping of name to bytes
        The secrets of the names that may take part, if there is no shared secret.
    source : str
        The file or variable that the secrets came from, for errors.

    Raises
    ------
    UsageError
        A secret is too short, or two names have the same.
    """

    def __init__(self, shared: bytes | None, by_name: Mapping[str, bytes], source: str) -> None:
        for secret in (*by_name.values(), *([] if shared is None else [shared])):
            if len(secret) < MIN_SECRET_BYTES:
                raise UsageError(
                    source, f"must have at least {MIN_SECRET_BYTES} bytes in a secret", len(secret)
                )
        owners: dict[bytes, str] = {}
        for name, secret in by_name.items():
            if (other := owners.setdefault(secret, name)) != name:
                raise UsageError(source, "must have another secret for each worker; the same", [other, name])
        self._shared = shared
        self._by_name = dict(by_name)
        self._source = source
        self._decoy = secrets.token_bytes(PROOF_NONCE_BYTES)

    def __repr__(self) -> str:
        return f"Credentials from {self._source}"

    def of(self, name: str) -> bytes:
        """The secret of a name; UsageError if it has none."""
        if self._shared is not None:
            return self._shared
        if name not in self._by_name:
            raise UsageError("--name", f"must have a secret in {self._source}", name)
        return self._by_name[name]

    def expected_of(self, name: str) -> bytes:
        """The secret that a worker of this name must know.

        A name without a secret gets a random one that no worker knows, so that the server's answers do not
        reveal which names exist.
        """
        return self._by_name.get(name, self._decoy) if self._shared is None else self._shared


def find_credentials(file: Path | None) -> Credentials | None:
    """The credentials in `file`, else in the environment variable ASYNCDMTL_SECRET, else None.

    A file whose name ends in .toml has a table `workers` of names and their secrets. Any other file has one
    line, the secret of all workers; so has the environment variable.

    Raises
    ------
    UsageError
        The file cannot be read, others may read it, or its content breaks a rule.
    """
    if file is None:
        secret = os.environ.get(SECRET_VARIABLE)
        return (
            None
            if secret is None
            else Credentials(_one_line(os.fsencode(secret), SECRET_VARIABLE), {}, SECRET_VARIABLE)
        )
    content = read_private(file, SECRET_OPTION)
    source = f"{SECRET_OPTION} {file}"
    if file.suffix == ".toml":
        return Credentials(None, _by_name(content, source), source)
    return Credentials(_one_line(content, source), {}, source)


def find_group_secret(file: Path | None) -> bytes | None:
    """The secret that the workers of a blind run share, and the server does not know.

    It is the one line in `file`, else in the environment variable ASYNCDMTL_GROUP_SECRET, else None.

    Raises
    ------
    UsageError
        The file cannot be read, others may read it, or its content breaks a rule.
    """
    source = GROUP_SECRET_VARIABLE if file is None else f"{GROUP_SECRET_OPTION} {file}"
    if file is not None:
        content = read_private(file, GROUP_SECRET_OPTION)
    elif (given := os.environ.get(GROUP_SECRET_VARIABLE)) is not None:
        content = os.fsencode(given)
    else:
        return None
    secret = _one_line(content, source)
    if len(secret) < MIN_SECRET_BYTES:
        raise UsageError(source, f"must have at least {MIN_SECRET_BYTES} bytes in a secret", len(secret))
    return secret


def read_private(file: Path, option: str) -> bytes:
    """The content of a file that only its owner, or also a group of this process or of root, may read.

    Kubernetes mounts secrets with mode 0440, owned by root and by the group of the process (fsGroup). systemd
    gives credentials the group of root, and lets their service read them by an access control list, which
    shows as mode 0440.

    Raises
    ------
    UsageError
        The file cannot be read, others may read it, or it is too large; the error names `option`.
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(option, f"must be readable ({error.strerror})", str(file)) from error
    if os.name == "posix" and status.st_mode & _forbidden(status.st_gid):
        raise UsageError(
            option,
            "must be readable by its owner only, or also by a group of this process or of root: "
            f"chmod 600 (its mode is {stat.S_IMODE(status.st_mode):03o})",
            str(file),
        )
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(option, f"must be at most {MAX_FILE_BYTES} bytes long", str(file))
    return content


@dataclass(frozen=True)
class ProofTranscript:
    """The facts that a proof covers.

    Attributes
    ----------
    run, name : str
        The run's name, and the worker's.
    server_nonce, worker_nonce : bytes
        Random numbers of both ends, so that a proof is accepted once.
    binding : bytes
        The channel binding of the TLS connection, so that a proof is refused where another server ends it;
        empty without TLS.
    """

    run: str
    name: str
    server_nonce: bytes
    worker_nonce: bytes
    binding: bytes

    def proof(self, secret: bytes, prover: Role) -> bytes:
        """The proof that the `prover` knows `secret`: HMAC-SHA256 (RFC 2104) of all facts, 32 bytes.

        The role of the prover is one of the facts, so that neither end can send the other's proof back.
        """
        facts: bytes = msgpack.packb(
            [
                "asyncdmtl",
                VERSION,
                prover,
                self.run,
                self.name,
                self.server_nonce,
                self.worker_nonce,
                self.binding,
            ]
        )
        return hmac.digest(secret, facts, "sha256")


def _forbidden(group: int) -> int:
    """The permission bits that a file of this group must not have."""
    # Members of the group 0 are root, and containers that run with this group by themselves.
    own = group in (0, os.getegid(), *os.getgroups())
    return stat.S_IRWXO | (stat.S_IWGRP | stat.S_IXGRP if own else stat.S_IRWXG)


def _one_line(content: bytes, source: str) -> bytes:
    """The secret in a text, without line ends and a byte order mark, which editors may add."""
    secret = content.removeprefix(codecs.BOM_UTF8).strip()
    if len(lines := secret.splitlines()) > 1:
        other = (
            ""
            if source.startswith((GROUP_SECRET_OPTION, GROUP_SECRET_VARIABLE))
            else (", or a file that ends in .toml")
        )
        raise UsageError(source, f"must be one line{other}; lines", len(lines))
    return secret


def _by_name(content: bytes, source: str) -> dict[str, bytes]:
    # The parser's own error would show a line of the file, and with it a secret.
    rule = 'must be TOML with a table "workers" of names and secrets'
    try:
        table = parse_document(content.decode("utf-8-sig"))
    except ValueError:
        raise UsageError(source, rule, "no TOML") from None
    workers = table.get("workers")
    if set(table) != {"workers"} or not isinstance(workers, dict) or not workers:
        raise UsageError(source, rule, sorted(table))
    for name, secret in workers.items():
        if not isinstance(secret, str):
            raise UsageError(f"{source}: {name}", "must have text as its secret", type(secret).__name__)
    return {name: secret.strip().encode() for name, secret in workers.items()}
