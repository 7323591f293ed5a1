"""A member: a worker that has joined, with the facts that the server has about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.fingerprints import Fingerprints
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import AsyncDMTLError, DataError, PeerError, UsageError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.peer_keys import peer_key
from asyncdmtl.protocol.messages.peers import Listens, Peer
from asyncdmtl.server.possession import Shown

# The digest of a partition's content in messages to workers that do not store it.
_UNTOLD = bytes(CONTENT_DIGEST_BYTES)


@dataclass(frozen=True)
class Place:
    """Where a worker accepts connections of others, and the secret from which their keys follow."""

    listens: Listens
    secret: bytes

    def peer(self, name: str, other: str) -> Peer:
        """Worker `name` at this place, for worker `other`."""
        told = self.listens
        return Peer(name, told.host, told.port, told.certificate, peer_key(self.secret, other))


@dataclass(eq=False)
class Member:
    """A worker that has joined.

    Attributes
    ----------
    name : str
    connection : Connection
    declared : tuple of Declaration
        The partitions that it stores.
    round, over, state : int, bool, bytes
        The fields of its `Declare`: its round, whether training was over, and the digest of its state.
    wants : str
        The models that it wants, as in its `Declare`.
    behind : tuple of str
        The workers behind it, if it is a relay; else empty.
    infos : tuple of PartitionInfo
        Its encoded partitions, once they are encoded.
    shown : mapping of partition to Shown
        Its answers to the challenges to show that it has the rows of its partitions.
    ready : bool
        Whether its rows are encoded.
    hears : bool
        Whether it received a probe of the multicast group.
    exchanges : bool
        Whether it may take rows from other workers.
    place : Place or None
        Where it accepts connections of other workers; None if it does not.
    current : bool
        Whether it has the state of the training of the current round.
    lost : AsyncDMTLError or None
        The error by which it was lost; None if it was not.
    held_until : float
        The time from which it takes part, by the event loop's clock (`Returns`).
    """

    name: str
    connection: Connection
    declared: tuple[Declaration, ...]
    round: int = 0
    over: bool = False
    state: bytes = b""
    wants: str = ""
    behind: tuple[str, ...] = ()
    infos: tuple[PartitionInfo, ...] = ()
    shown: Mapping[str, Shown] = field(default_factory=dict)
    ready: bool = False
    hears: bool = False
    exchanges: bool = False
    place: Place | None = None
    current: bool = False
    lost: AsyncDMTLError | None = None
    held_until: float = -math.inf

    @property
    def gone(self) -> bool:
        """Whether it is lost, or its connection has ended and the server has not handled that yet."""
        return self.lost is not None or self.connection.lost

    @property
    def stands_for(self) -> tuple[str, ...]:
        """The names of the workers that it stands for: those behind a relay, else itself."""
        return self.behind or (self.name,)

    @property
    def workers(self) -> int:
        """The number of workers that it stands for."""
        return len(self.stands_for)

    @property
    def helps(self) -> bool:
        """Whether it wants no models, so that it never has the state of a training that is over."""
        return self.wants == "none"

    @property
    def ended(self) -> bool:
        """Whether it is lost because of its own data or options, so that it cannot come back."""
        return self.lost is not None and is_final(self.lost)

    @property
    def partitions(self) -> tuple[str, ...]:
        """The names of the partitions that it stores."""
        return tuple(part.id for part in self.declared)

    def first_answer(self, partition: str) -> bytes:
        """Its answer for a partition to the challenge of all workers at the start."""
        return self.shown[partition].first if partition in self.shown else b""

    def told_infos(
        self, infos: Sequence[PartitionInfo], untold: Sequence[PartitionInfo]
    ) -> tuple[PartitionInfo, ...]:
        """What it is told of all partitions; digests of contents, which prove possession, of its own only.

        Parameters
        ----------
        infos : sequence of PartitionInfo
        untold : sequence of PartitionInfo
            The same without digests, as `without_digests` makes them once for all members.
        """
        held = set(self.partitions)
        return tuple(info if info.id in held else hidden for info, hidden in zip(infos, untold, strict=True))

    def declaration(self, partition: str) -> Declaration:
        """Its declaration of one of its partitions."""
        return next(part for part in self.declared if part.id == partition)


def without_digests(infos: Sequence[PartitionInfo]) -> tuple[PartitionInfo, ...]:
    """What workers are told of the partitions of others."""
    return tuple(replace(info, digest=_UNTOLD) for info in infos)


def is_final(error: AsyncDMTLError) -> bool:
    """Whether a worker that ended with this error failed because of its own data or options."""
    return isinstance(error, PeerError) and error.exit_code == UsageError.exit_code


def check_prepared(
    name: str,
    declared: Sequence[Declaration],
    prepared: Sequence[PartitionInfo],
    encoding: Encoding,
    known: Mapping[str, PartitionInfo],
) -> None:
    """Check the encoded partitions of worker `name`.

    Raises
    ------
    DataError
        They are not those that the worker declared, or differ from the encoded partitions of other holders.
    """
    expected = [(part.id, part.task, part.rows, part.held) for part in declared]
    found = [(info.id, info.task, info.rows, info.held) for info in prepared]
    if found != expected:
        raise DataError(f"worker {name!r}", f"must encode what it declared, {expected}", found)
    features = sorted({info.features for info in prepared})
    if not encoding.is_empty and features not in ([], [len(encoding.features)]):
        rule = f"must have the {len(encoding.features)} features of the encoding"
        raise DataError(f"partitions of worker {name!r}", rule, features)
    for info in prepared:
        if known.get(info.id, info) != info:
            raise other_encoding(name, info, known[info.id])


def other_encoding(name: str, info: PartitionInfo, believed: PartitionInfo) -> DataError:
    """The error that worker `name` encoded a partition differently from the believed holders.

    Digests are not told, since they show possession.
    """
    rule = f"must be encoded as at its other holders ({replace(believed, digest=b'')})"
    return DataError(f"partition {info.id!r} of worker {name!r}", rule, replace(info, digest=b""))


def other_data(name: str, part: Declaration, holders: str, believed: Declaration) -> DataError:
    """The error that worker `name` declared a partition differently from the believed `holders`.

    The digest of the content is not told, since it shows possession. Large surveys take a second.

    Raises
    ------
    UsageError
        The survey of `part` is malformed.
    """
    what = f"partition {part.id!r} of worker {name!r}"
    own, theirs = (
        Fingerprints.from_dict(p.survey.get("fingerprints")) if p.survey else None for p in (part, believed)
    )
    if own is None or theirs is None or own == theirs:
        rule = f"must be the same data as at {holders} ({_describe(believed)})"
        return DataError(what, rule, _describe(part))
    if difference := own.difference(theirs):
        rule = f"must be the same data as its copy at {holders}, but {difference}"
        return DataError(what, rule, part.id)
    # They have no column in common, and so are no copies at all.
    rule = f"has other rows than that of the same name at {holders}: --site or another file name"
    return DataError(what, f"{rule} tells them apart", part.id)


def _describe(part: Declaration) -> str:
    """A declaration in words, for comparison with another one of the same partition."""
    held = f" beside {part.held} for tests" if part.held else ""
    return f"task {part.task}, {part.rows} rows{held}, declaration {part.claim.hex()[:8]}"
