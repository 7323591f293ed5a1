"""The agreement of workers on the key of their group, through a server that cannot read it.

Each worker draws a pair of X25519 keys (RFC 7748) for its connection, and offers the public one with a proof
that a member of the group made it. The first worker draws the key of the group, and each that comes later is
given it by one that has it: sealed under what both can compute from their pairs, and nobody else.

A server cannot play a member, since it has nothing to prove an offer with. It cannot replay what it passed
on either: a gift is bound to the run, to the number of keys in it, and to both offers, of which that of the
taker is new with each connection.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Protocol

import msgpack
from blake3 import blake3

from asyncdmtl.blinding.group_key import SEAL_BYTES, SECRET_BYTES, GroupKey
from asyncdmtl.errors import AuthenticationError

PUBLIC_KEY_BYTES = 32
"""Bytes of a public key of X25519."""

# The contexts in which keys are derived, so that other uses of the same secret give other keys.
_PROOF_CONTEXT = "asyncdmtl 0.3: proofs of members of a group"
_GIFT_CONTEXT = "asyncdmtl 0.3: gifts of the keys of a group"

# Bytes of the key of a gift: AES-SIV with AES-256 takes two keys of 32.
_GIFT_KEY_BYTES = 64


@dataclass(frozen=True)
class Offer:
    """A public key of a worker, with the proof that it is a member's.

    Attributes
    ----------
    name : str
        The worker's name.
    public : bytes
        Its public key of X25519, of `PUBLIC_KEY_BYTES` bytes.
    proof : bytes
        A MAC, or a signature.
    certificate : bytes
        The certificate, in DER, whose key made the signature; empty for a MAC.
    """

    name: str
    public: bytes
    proof: bytes
    certificate: bytes = b""

    def facts(self, run: str) -> bytes:
        """The facts that the proof covers."""
        packed: bytes = msgpack.packb(["asyncdmtl: offer of a member", run, self.name, self.public])
        return packed


class MemberProofs(Protocol):
    """The proofs by which workers show each other that they are members of one group."""

    @property
    def certificate(self) -> bytes:
        """This worker's certificate in DER; empty if proofs need none."""

    def prove(self, facts: bytes) -> bytes:
        """This worker's proof of some facts."""

    def check(self, offer: Offer, facts: bytes) -> None:
        """Raise AuthenticationError unless a member of the offer's name has proven these facts."""


class SecretProofs:
    """Proofs by a secret that all members know: BLAKE3 with a key from it.

    They prove membership, and no name: members could take each other's.

    Parameters
    ----------
    secret : bytes
    """

    certificate = b""

    def __init__(self, secret: bytes) -> None:
        self._key = blake3(secret, derive_key_context=_PROOF_CONTEXT).digest()

    def __repr__(self) -> str:
        return "SecretProofs"

    def prove(self, facts: bytes) -> bytes:
        """The MAC of some facts, 32 bytes."""
        return blake3(facts, key=self._key).digest()

    def check(self, offer: Offer, facts: bytes) -> None:
        """Raise AuthenticationError unless the offer has the MAC of these facts."""
        if not hmac.compare_digest(self.prove(facts), offer.proof):
            raise AuthenticationError(
                f"worker {offer.name!r} did not prove that it is in the group of this worker: "
                "all must have the same --group-secret-file"
            )


class Agreement:
    """The part of one worker in the agreement, for the time of a connection.

    Parameters
    ----------
    run : str
        The run's name.
    name : str
        The worker's name.
    proofs : MemberProofs

    Attributes
    ----------
    offer : Offer
        The worker's own offer.
    """

    def __init__(self, run: str, name: str, proofs: MemberProofs) -> None:
        # Imported here, since it takes a tenth of a second and few runs are blind.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._run = run
        self._proofs = proofs
        self._pair = X25519PrivateKey.generate()
        unproven = Offer(name, self._pair.public_key().public_bytes_raw(), b"", proofs.certificate)
        self.offer = Offer(name, unproven.public, proofs.prove(unproven.facts(run)), proofs.certificate)

    def gift(self, group: GroupKey, taker: Offer) -> bytes:
        """The keys of a group for another worker.

        Raises
        ------
        AuthenticationError
            The taker did not prove that it is a member.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        key = self._shared(taker, len(group.secrets), self.offer, taker)
        return AESSIV(key).encrypt(b"".join(group.secrets), None)

    def taken(self, giver: Offer, gift: bytes) -> GroupKey:
        """The keys in a gift that was made for this worker.

        Raises
        ------
        AuthenticationError
            The giver did not prove that it is a member, or made this gift for another worker, run, or
            connection.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        count, rest = divmod(len(gift) - SEAL_BYTES, SECRET_BYTES)
        if count < 1 or rest:
            raise AuthenticationError(f"worker {giver.name!r} gave {len(gift)} bytes, which are no keys")
        key = self._shared(giver, count, giver, self.offer)
        try:
            packed = AESSIV(key).decrypt(gift, None)
        except (InvalidTag, ValueError):
            raise AuthenticationError(
                f"the key of the group was not sealed by worker {giver.name!r} for this connection"
            ) from None
        secrets = [packed[start : start + SECRET_BYTES] for start in range(0, len(packed), SECRET_BYTES)]
        return GroupKey.of_secrets(secrets, self._run)

    def _shared(self, other: Offer, count: int, giver: Offer, taker: Offer) -> bytes:
        """The key of a gift of so many secrets between two workers, of which `other` is not this one."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        self._proofs.check(other, other.facts(self._run))
        try:
            shared = self._pair.exchange(X25519PublicKey.from_public_bytes(other.public))
        except ValueError:
            # A point of small order, with which all pairs share one value that anybody knows.
            raise AuthenticationError(f"worker {other.name!r} offers a public key that is none") from None
        ends = [giver.name, giver.public, taker.name, taker.public]
        facts = msgpack.packb([self._run, count, *ends, shared])
        return blake3(facts, derive_key_context=_GIFT_CONTEXT).digest(length=_GIFT_KEY_BYTES)
