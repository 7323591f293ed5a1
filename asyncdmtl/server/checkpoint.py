"""What a server writes down of a run, so that another server can go on with it.

::

    magic     8 bytes
    lengths   two u64, big-endian: bytes of the facts and of the state
    facts     one msgpack map
    state     of the training at the beginning of the round, or nothing if the workers hold it
    check     16 bytes of BLAKE2b over all before it
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import (
    pack_declaration,
    pack_info,
    parse_declaration,
    parse_each,
    parse_info,
)
from asyncdmtl.server.records import Incident, RoundRecord

# Identifies the format: a change of the format changes the last character.
MAGIC = b"admtlck1"

# The two lengths that follow it.
LENGTHS = struct.Struct(">QQ")

# Bytes of the BLAKE2b digest at the end, which tells whether the file is what was written.
CHECK_BYTES = 16


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that the server of a run must know to go on with it.

    Attributes
    ----------
    run : str
        The run's name.
    settings, strategy, encoding
        Of the run; `strategy` is a word of `CHOICES`, but not "auto".
    declared : tuple of Declaration
        All partitions, in natural order.
    infos : tuple of PartitionInfo
        What they became, in the same order.
    workers : tuple of str
        Who took part.
    plans : int
        How many were made.
    round, over
        Where the training stands: at the beginning of this round, or at its end.
    rounds, incidents, ledger
        What has been made so far, went wrong, and travelled.
    distrusted : tuple of (worker, partition)
        Who is treated as not holding what.
    state : uint8 array
        Of the training; empty if it is that before the first round, or if only the workers hold it.
    """

    run: str
    settings: Settings
    strategy: str
    encoding: Encoding
    declared: tuple[Declaration, ...]
    infos: tuple[PartitionInfo, ...]
    workers: tuple[str, ...]
    plans: int
    round: int
    over: bool
    rounds: tuple[RoundRecord, ...]
    incidents: tuple[Incident, ...]
    ledger: Ledger
    distrusted: tuple[tuple[str, str], ...]
    state: Bytes

    def pack(self) -> bytes:
        """The content of a file."""
        facts: bytes = msgpack.packb(
            {
                "run": self.run,
                "settings": self.settings.as_dict(),
                "strategy": self.strategy,
                "encoding": self.encoding.as_dict(),
                "declared": [pack_declaration(part) for part in self.declared],
                "infos": [pack_info(info) for info in self.infos],
                "workers": self.workers,
                "plans": self.plans,
                "round": self.round,
                "over": self.over,
                # Rows and not maps: a long run has a hundred thousand of them.
                "rounds": [list(vars(record).values()) for record in self.rounds],
                "incidents": [list(vars(incident).values()) for incident in self.incidents],
                "ledger": self.ledger.as_rows(),
                "distrusted": self.distrusted,
            }
        )
        lengths = LENGTHS.pack(len(facts), self.state.nbytes)
        content = b"".join((MAGIC, lengths, facts, self.state.tobytes()))
        return content + _check(content)

    @classmethod
    def unpack(cls, content: bytes) -> Checkpoint:
        """Read what `pack` gave; ValueError says what is wrong with it."""
        start = len(MAGIC) + LENGTHS.size
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError("it is no checkpoint of this version")
        if len(content) < start + CHECK_BYTES:
            raise ValueError("it is truncated")
        facts, state = LENGTHS.unpack_from(content, len(MAGIC))
        if len(content) != start + facts + state + CHECK_BYTES:
            raise ValueError(f"it has {len(content)} bytes instead of {start + facts + state + CHECK_BYTES}")
        if _check(content[:-CHECK_BYTES]) != content[-CHECK_BYTES:]:
            raise ValueError("it does not match its check")
        try:
            known = msgpack.unpackb(content[start : start + facts])
            return cls._read(known, np.frombuffer(content, np.uint8, state, start + facts).copy())
        except (AsyncDMTLError, KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"it makes no sense: {error!r}") from error

    @classmethod
    def _read(cls, facts: Mapping[str, Any], state: Bytes) -> Checkpoint:
        return cls(
            run=facts["run"],
            settings=Settings.from_dict(facts["settings"]),
            strategy=facts["strategy"],
            encoding=Encoding.from_dict(facts["encoding"]),
            declared=parse_each(facts["declared"], parse_declaration),
            infos=parse_each(facts["infos"], parse_info),
            workers=tuple(facts["workers"]),
            plans=facts["plans"],
            round=facts["round"],
            over=facts["over"],
            rounds=tuple(RoundRecord(*record) for record in facts["rounds"]),
            incidents=tuple(Incident(*incident) for incident in facts["incidents"]),
            ledger=Ledger.from_rows(facts["ledger"]),
            distrusted=tuple((worker, partition) for worker, partition in facts["distrusted"]),
            state=state,
        )


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECK_BYTES, usedforsecurity=False).digest()
