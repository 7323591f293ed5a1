"""Secrets: where they come from, and how one proves to know one without telling it.

A secret is read from a file that only its owner may read, or from the environment. It is in no option, and
nothing here shows it: errors and representations name where it came from.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgpack

from asyncdmtl.errors import UsageError
from asyncdmtl.protocol.messages.base import Role
from asyncdmtl.protocol.messages.joining import PROOF_NONCE_BYTES, VERSION

VARIABLE = "ASYNCDMTL_SECRET"
OPTION = "--secret-file"

# Bytes. A proof that was overheard lets one try out secrets at home: a secret must be too long for that.
LEAST_SECRET = 16
MOST_FILE = 1 << 20


class Credentials:
    """Who knows which secret: one for all, or one for each name.

    Parameters
    ----------
    shared : bytes or None
        The secret of every name.
    by_name : mapping of name to bytes
        If there is no shared one: the secrets of the names that may take part.
    source : str
        Where they are from, for errors.
    """

    def __init__(self, shared: bytes | None, by_name: Mapping[str, bytes], source: str) -> None:
        for secret in (*by_name.values(), *([] if shared is None else [shared])):
            if len(secret) < LEAST_SECRET:
                raise UsageError(source, f"must have at least {LEAST_SECRET} bytes in a secret", len(secret))
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
        """The secret that a stranger of this name must know; one that nobody knows if the name has none.

        Thus strangers cannot find out which names there are.
        """
        return self._by_name.get(name, self._decoy) if self._shared is None else self._shared


def find_credentials(file: Path | None) -> Credentials | None:
    """The credentials in `file`, else in the environment (ASYNCDMTL_SECRET, one for all), else None.

    A file whose name ends in .toml has a table `workers` of names and their secrets; any other has one line,
    the secret of all. UsageError if a file cannot be read, can be read by others, or makes no sense.
    """
    if file is None:
        secret = os.environ.get(VARIABLE)
        return None if secret is None else Credentials(os.fsencode(secret), {}, VARIABLE)
    content = read_private(file, OPTION)
    source = f"{OPTION} {file}"
    if file.suffix == ".toml":
        return Credentials(None, _by_name(content, source), source)
    secret_line = content.strip()
    if b"\n" in secret_line:
        raise UsageError(source, "must be one line, or end in .toml; lines", secret_line.count(b"\n") + 1)
    return Credentials(secret_line, {}, source)


def read_private(file: Path, option: str) -> bytes:
    """The content of a file that only its owner may read or write; else UsageError, naming `option`."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(MOST_FILE + 1)
    except OSError as error:
        raise UsageError(option, f"must be readable ({error.strerror})", str(file)) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            option,
            f"must be nobody's but its owner's: chmod 600 (its mode is {stat.S_IMODE(mode):03o})",
            str(file),
        )
    if len(content) > MOST_FILE:
        raise UsageError(option, f"must be at most {MOST_FILE} bytes long", str(file))
    return content


@dataclass(frozen=True)
class ProofTranscript:
    """All that a proof is said for.

    Attributes
    ----------
    run, name : str
        Of the run, and of the worker.
    server_nonce, worker_nonce : bytes
        What each end drew by chance, so that a proof holds but once.
    binding : bytes
        Of the TLS connection, so that nobody can pass a proof on over another; empty without TLS.
    """

    run: str
    name: str
    server_nonce: bytes
    worker_nonce: bytes
    binding: bytes

    def proof(self, secret: bytes, prover: Role) -> bytes:
        """What only one who knows `secret` can say (32 bytes): HMAC-SHA256 (RFC 2104) of all this.

        The role of the `prover` is in it, so that neither end can give back what the other said.
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


def _by_name(content: bytes, source: str) -> dict[str, bytes]:
    # What the parser has to say about a line might show a part of a secret.
    rule = 'must be TOML with a table "workers" of names and secrets'
    try:
        table = tomllib.loads(content.decode())
    except ValueError:
        raise UsageError(source, rule, "no TOML") from None
    workers = table.get("workers")
    if set(table) != {"workers"} or not isinstance(workers, dict) or not workers:
        raise UsageError(source, rule, sorted(table))
    for name, secret in workers.items():
        if not isinstance(secret, str):
            raise UsageError(f"{source}: {name}", "must have text as its secret", type(secret).__name__)
    return {name: secret.encode() for name, secret in workers.items()}
