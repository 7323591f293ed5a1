"""The keys by which two workers prove their names to each other.

The server draws a secret for every worker that others may connect to. The key of a worker that connects
follows from that secret and its name, so that the server gives it this key alone, and the other end needs no
list of names.
"""

from __future__ import annotations

import hmac

from asyncdmtl.net.credentials import Credentials


def peer_key(secret: bytes, name: str) -> bytes:
    """The key of the worker `name` at the worker that has this secret: HMAC-SHA256 (RFC 2104), 32 bytes."""
    return hmac.digest(secret, b"asyncdmtl: key of a peer\0" + name.encode(), "sha256")


class PeerCredentials(Credentials):
    """The keys of all workers that the server lets connect to this one.

    Parameters
    ----------
    secret : bytes
        The secret of this worker.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(None, {}, "the keys of the run")
        self._secret = secret

    def of(self, name: str) -> bytes:
        """The key of a worker."""
        return peer_key(self._secret, name)

    def expected_of(self, name: str) -> bytes:
        """The key of a worker."""
        return peer_key(self._secret, name)
