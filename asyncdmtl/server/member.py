"""A worker as the server knows it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError, DataError, PeerError, UsageError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.net.connection import Connection


@dataclass(eq=False)
class Member:
    """A worker that has joined.

    `declared` is what it stores, and `round`, `over` and `state` where it says that it stands (`Declare`).
    It is `ready` once its rows are encoded, as `infos` tell, `current` while it has the state of the round
    that is being made, and `lost` says why it is gone; if it may come back, `missed_since` is when that was,
    by the event loop's clock. It `hears` the group if there is one and a probe got there.
    """

    name: str
    connection: Connection
    declared: tuple[Declaration, ...]
    round: int = 0
    over: bool = False
    state: bytes = b""
    infos: tuple[PartitionInfo, ...] = ()
    ready: bool = False
    hears: bool = False
    current: bool = False
    lost: AsyncDMTLError | None = None
    missed_since: float = -math.inf

    @property
    def gone(self) -> bool:
        """Whether it is lost, even if nobody has noticed yet."""
        return self.lost is not None or self.connection.lost

    @property
    def ended(self) -> bool:
        """Whether it is lost because of its own data or options, so that it will not come back."""
        return self.lost is not None and is_final(self.lost)

    @property
    def partitions(self) -> tuple[str, ...]:
        """Names of the partitions that it stores."""
        return tuple(part.id for part in self.declared)

    def declaration(self, partition: str) -> Declaration:
        """What it declared of one of its partitions."""
        return next(part for part in self.declared if part.id == partition)


def is_final(error: AsyncDMTLError) -> bool:
    """Whether a worker that says so failed because of its own data or options."""
    return isinstance(error, PeerError) and error.exit_code == UsageError.exit_code


def check_prepared(
    name: str,
    declared: Sequence[Declaration],
    prepared: Sequence[PartitionInfo],
    encoding: Encoding,
    known: Mapping[str, PartitionInfo],
) -> None:
    """DataError unless worker `name` encoded what it declared, and as others did what is known already."""
    expected = [(part.id, part.task, part.rows) for part in declared]
    found = [(info.id, info.task, info.rows) for info in prepared]
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
    """Worker `name` made something else of a partition than those who are believed."""
    rule = f"must be encoded as at its other holders ({believed})"
    return DataError(f"partition {info.id!r} of worker {name!r}", rule, info)


def other_data(name: str, part: Declaration, holders: str, believed: Declaration) -> DataError:
    """Worker `name` declared something else of a partition than `holders`, who are believed."""
    rule = f"must be the same data as at {holders} ({_describe(believed)})"
    return DataError(f"partition {part.id!r} of worker {name!r}", rule, _describe(part))


def _describe(part: Declaration) -> str:
    """What tells one declaration of a partition from another."""
    survey = hashlib.blake2b(repr(part.survey).encode(), digest_size=4).hexdigest()
    return f"task {part.task}, {part.rows} rows, digest {part.digest.hex()[:12]}, survey {survey}"
