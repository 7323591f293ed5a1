"""The content of a checkpoint, from which another server can continue a run.

::

    magic     8 bytes
    lengths   two u64, big-endian: bytes of the facts and of the state
    facts     one msgpack map
    state     of the training at the beginning of the round; nothing if only the workers hold it
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
from asyncdmtl.protocol.framing import Buffer
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import (
    pack_declaration,
    pack_info,
    parse_declaration,
    parse_each,
    parse_info,
)
from asyncdmtl.server.ending import Ending
from asyncdmtl.server.records import Incident
from asyncdmtl.server.round_log import RoundLog

# The first bytes of a checkpoint, which identify its format. The last character is the version of the format.
MAGIC = b"admtlck3"

# The format of the two lengths after the magic.
LENGTHS = struct.Struct(">QQ")

# The errors that malformed facts may raise.
_MALFORMED = (AsyncDMTLError, AttributeError, KeyError, TypeError, ValueError, msgpack.UnpackException)

# Bytes of the BLAKE2b digest at the end, by which a damaged file is detected.
CHECK_BYTES = 16


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The facts that a server needs to continue a run.

    Attributes
    ----------
    run : str
        The run's name.
    settings, strategy, encoding
        Those of the run; `strategy` is one of `CHOICES`, but not "auto".
    declared : tuple of Declaration
        All partitions, in natural order.
    infos : tuple of PartitionInfo
        The encoded partitions, in the same order.
    workers : tuple of str
        The workers that took part.
    plans : int
        The number of plans so far.
    round, over
        The next round, and whether the training is over.
    rounds, incidents, ledger
        The rounds, incidents and bytes so far.
    distrusted : tuple of (worker, partition)
        Pairs of a worker and a partition that it is treated as not holding.
    state : uint8 array
        The state of the training; empty if it is the initial one, or if only the workers hold it.
    ending : Ending or None
        The end of the run, once all workers have the final models.
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
    rounds: RoundLog
    incidents: tuple[Incident, ...]
    ledger: Ledger
    distrusted: tuple[tuple[str, str], ...]
    state: Bytes
    ending: Ending | None = None

    def pack(self) -> bytes:
        """The content of a file."""
        return b"".join(self.pieces())

    def pieces(self) -> tuple[Buffer, ...]:
        """The content of a file in pieces, the state among them without a copy."""
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
                "rounds": self.rounds.pack(),
                "incidents": [list(vars(incident).values()) for incident in self.incidents],
                "ledger": self.ledger.as_rows(),
                "distrusted": self.distrusted,
                "ending": None if self.ending is None else self.ending.pack(),
            }
        )
        lengths = LENGTHS.pack(len(facts), self.state.nbytes)
        content = (MAGIC, lengths, facts, np.ascontiguousarray(self.state).data)
        return (*content, _check(*content))

    @classmethod
    def unpack(cls, content: bytes) -> Checkpoint:
        """Read the result of `pack`; ValueError describes a defect."""
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
        except _MALFORMED as error:
            raise ValueError(f"it makes no sense: {error!r}") from error

    @classmethod
    def _read(cls, facts: Mapping[str, Any], state: Bytes) -> Checkpoint:
        settings, ending = Settings.from_dict(facts["settings"]), facts["ending"]
        return cls(
            run=facts["run"],
            settings=settings,
            strategy=facts["strategy"],
            encoding=Encoding.from_dict(facts["encoding"]),
            declared=parse_each(facts["declared"], parse_declaration),
            infos=parse_each(facts["infos"], parse_info),
            workers=tuple(facts["workers"]),
            plans=facts["plans"],
            round=facts["round"],
            over=facts["over"],
            rounds=RoundLog.unpack(facts["rounds"]),
            incidents=tuple(Incident(*incident) for incident in facts["incidents"]),
            ledger=Ledger.from_rows(facts["ledger"]),
            distrusted=tuple((worker, partition) for worker, partition in facts["distrusted"]),
            state=state,
            ending=None if ending is None else Ending.unpack(ending, settings.loss),
        )


def _check(*content: Buffer) -> bytes:
    check = hashlib.blake2b(digest_size=CHECK_BYTES, usedforsecurity=False)
    for piece in content:
        check.update(piece)
    return check.digest()
