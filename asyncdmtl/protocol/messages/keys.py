"""The messages by which the workers of a blind run agree on a key, which the server passes on sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.agreement import PUBLIC_KEY_BYTES, Offer
from asyncdmtl.blinding.group_key import NAME_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import MAX_BEHIND

# The most bytes of a proof: a signature with an RSA key of 8192 bits has 1024.
MAX_PROOF_BYTES = 1 << 10

# The most bytes of a certificate in DER: one with an RSA key of 8192 bits has some 2,300.
MAX_CERTIFICATE_BYTES = 1 << 13

# The most keys of a run: a new one follows each exclusion of a worker.
MAX_KEYS = 1 << 12

# The most bytes of a gift: all keys of a run, each of 32 bytes, and the seal.
MAX_GIFT_BYTES = (MAX_KEYS + 1) << 5

# The most workers that are given keys at one time, as many as a server accepts.
MAX_TAKERS = MAX_BEHIND


@dataclass(frozen=True, eq=False)
class KeyRequest(Message):
    """Offers the worker's public key, and says which key of the group it has.

    Attributes
    ----------
    offer : Offer
    group : bytes
        The name of the first key that the worker has, of `NAME_BYTES` bytes.
    epoch : int
        The number of keys that have replaced it there.
    fresh : bool
        Whether the worker has drawn this key just now, so that it takes any other.
    """

    number, kind, sender = 34, "key-request", "worker"
    offer: Offer
    group: bytes
    epoch: int = 0
    fresh: bool = True

    def fields(self) -> list[Any]:
        return [_packed(self.offer), self.group, self.epoch, self.fresh]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> KeyRequest:
        offer, group, epoch, fresh = fields.exactly(values, 4, cls.kind)
        return cls(
            _offer(offer),
            fields.binary(group, "name of a key", NAME_BYTES, 1),
            fields.integer(epoch, "epoch", 0, MAX_KEYS),
            fields.flag(fresh, "fresh"),
        )


class KeyControl(Message):
    """Base of the messages about keys that are acted on at once, past the inbox."""


@dataclass(frozen=True, eq=False)
class GroupKeys(KeyControl):
    """Answers a `KeyRequest`: with the keys that another worker has sealed for this one.

    Attributes
    ----------
    giver : Offer or None
        The offer of the worker that sealed them; None if the worker keeps the key that it has.
    gift : bytes
        The sealed keys.
    """

    number, kind, sender = 35, "group-keys", "server"
    giver: Offer | None = None
    gift: bytes = b""

    def fields(self) -> list[Any]:
        return [[] if self.giver is None else _packed(self.giver), self.gift]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> GroupKeys:
        giver, gift = fields.exactly(values, 2, cls.kind)
        found = _offer(giver) if fields.sequence(giver, "giver") else None
        if found is None and gift != b"":
            raise RemoteProtocolError("keys of a group must have a giver")
        return cls(found, _short(gift, "sealed keys", MAX_GIFT_BYTES))


@dataclass(frozen=True, eq=False)
class RenewedKeys(KeyControl):
    """Sends the worker new keys, as another worker has sealed them for it.

    Attributes
    ----------
    giver : Offer
    gift : bytes
    """

    number, kind, sender = 36, "renewed-keys", "server"
    giver: Offer
    gift: bytes

    def fields(self) -> list[Any]:
        return [_packed(self.giver), self.gift]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> RenewedKeys:
        giver, gift = fields.exactly(values, 2, cls.kind)
        return cls(_offer(giver), _short(gift, "sealed keys", MAX_GIFT_BYTES))


@dataclass(frozen=True, eq=False)
class KeyOrder(KeyControl):
    """Asks the worker to seal the keys of its group for other workers.

    Attributes
    ----------
    order : int
        The number of the order.
    epoch : int
        That of the key which the worker has; or the next one, for which it draws a new key.
    takers : tuple of Offer
    """

    number, kind, sender = 37, "key-order", "server"
    order: int
    epoch: int
    takers: tuple[Offer, ...]

    def fields(self) -> list[Any]:
        return [self.order, self.epoch, [_packed(taker) for taker in self.takers]]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> KeyOrder:
        order, epoch, takers = fields.exactly(values, 3, cls.kind)
        return cls(
            fields.integer(order, "number of an order"),
            fields.integer(epoch, "epoch", 0, MAX_KEYS),
            tuple(_offer(taker) for taker in _some(takers, "takers")),
        )


@dataclass(frozen=True, eq=False)
class KeysGiven(KeyControl):
    """Answers a `KeyOrder`.

    Attributes
    ----------
    order : int
        The number of the order.
    gifts : tuple of bytes
        The sealed keys for each taker; empty for one that did not prove that it is a member.
    """

    number, kind, sender = 38, "keys-given", "worker"
    order: int
    gifts: tuple[bytes, ...]

    def fields(self) -> list[Any]:
        return [self.order, list(self.gifts)]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> KeysGiven:
        order, gifts = fields.exactly(values, 2, cls.kind)
        return cls(
            fields.integer(order, "number of an order"),
            tuple(_short(gift, "sealed keys", MAX_GIFT_BYTES) for gift in _some(gifts, "gifts")),
        )


def _packed(offer: Offer) -> list[Any]:
    return [offer.name, offer.public, offer.proof, offer.certificate]


def _offer(item: Any) -> Offer:
    """The offer in a received list, with every field checked."""
    name, public, proof, certificate = fields.exactly(fields.sequence(item, "offer"), 4, "offer")
    return Offer(
        fields.name(name, "worker name"),
        fields.binary(public, "public key", PUBLIC_KEY_BYTES, 1),
        _short(proof, "proof", MAX_PROOF_BYTES),
        _short(certificate, "certificate", MAX_CERTIFICATE_BYTES),
    )


def _some(values: Any, field: str) -> list[Any]:
    if len(found := fields.sequence(values, field)) > MAX_TAKERS:
        raise RemoteProtocolError(f"{field} must be at most {MAX_TAKERS}, not {len(found)}")
    return found


def _short(value: Any, field: str, limit: int) -> bytes:
    """Some bytes, at most `limit`."""
    found = fields.binary(value, field, 1)
    if len(found) > limit:
        raise RemoteProtocolError(f"{field} must have at most {limit} bytes, not {len(found)}")
    return found
