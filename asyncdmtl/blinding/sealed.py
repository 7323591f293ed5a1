"""What workers of a blind run tell each other through a server that cannot read it.

Surveys and facts of partitions, the numbers that decide when training ends, and states of the training. Each
is sealed (`GroupKey.seal`) and bound to what it is: to a partition, a round, or both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.group_key import SEAL_BYTES, GroupKey
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.surveys import Survey
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import IntegrityError, RemoteProtocolError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import SEALED, Declaration, PartitionInfo

SEALED_NUMBER_BYTES = 8 + SEAL_BYTES
"""Bytes of a sealed number."""

SEALED_STATE_BYTES = VECTOR_DIGEST_BYTES + SEAL_BYTES + 1
"""Bytes that a sealed state has beside the state: its check, the seal, and whether training is over."""

# Sealed surveys are filled up to a multiple of this many bytes, since the length of names and of whole
# numbers would tell something of them.
SURVEY_BLOCK = 1024

# The facts about a partition that depend on its rows: weight, smoothness, classes, mark of the content.
_FACTS = struct.Struct("<dd2s16s")

_NUMBER = struct.Struct("<d")

# The same with its place, where nobody needs to read it: kind, round, and partition or worker.
_TAGGED = struct.Struct("<8sQQd")
_LENGTH = struct.Struct("<Q")


def sealed_declaration(group: GroupKey, part: Declaration) -> Declaration:
    """The declaration of a partition as the server gets it: names and counts, a sealed survey, and MACs."""
    content = msgpack.packb(dict(part.survey))
    filled = _LENGTH.pack(len(content)) + content
    filled += bytes(-len(filled) % SURVEY_BLOCK)
    survey = {"claim": group.digest.keyed(part.claim), SEALED: group.first.seal(("survey", part.id), filled)}
    return replace(part, digest=group.digest.keyed(part.digest), survey=survey)


def sealed_surveys(declared: Mapping[str, Declaration]) -> dict[str, bytes]:
    """The sealed surveys of all partitions, which the server passes on to the workers.

    Raises
    ------
    UsageError
        A survey is not sealed.
    """
    found = {name: part.survey.get(SEALED) for name, part in declared.items()}
    for name, sealed in found.items():
        if not isinstance(sealed, bytes):
            raise UsageError(f"survey of partition {name!r}", "must be sealed in a blind run", type(sealed))
    return {name: bytes(sealed) for name, sealed in found.items() if sealed is not None}


def check_sealed(declared: Iterable[Declaration]) -> None:
    """Raise UsageError unless all surveys are sealed."""
    sealed_surveys({part.id: part for part in declared})


def pooled_encoding(group: GroupKey, surveys: object, settings: Settings) -> Encoding:
    """The encoding that follows from the sealed surveys of all partitions.

    Raises
    ------
    IntegrityError
        A survey was not sealed by a worker of this group.
    DataError
        The surveys do not fit each other.
    RemoteProtocolError
        The surveys are malformed.
    """
    if not isinstance(surveys, dict) or not all(isinstance(sealed, bytes) for sealed in surveys.values()):
        raise RemoteProtocolError("sealed surveys must be a map of names to bytes")
    read = {}
    for name, sealed in surveys.items():
        filled = group.first.open(("survey", name), sealed)
        (length,) = _LENGTH.unpack_from(filled)
        content = msgpack.unpackb(filled[_LENGTH.size : _LENGTH.size + length])
        read[name] = Survey.from_dict(content)
    return pool(read, settings.loss, standardise=settings.standardise, centre=settings.centred)


def sealed_info(group: GroupKey, info: PartitionInfo) -> PartitionInfo:
    """The facts about an encoded partition as the server gets them.

    Those that follow from its rows are sealed; in their places are values that any partition could have.
    """
    facts = _FACTS.pack(info.weight, info.smoothness, info.classes.encode(), content_mark(group, info))
    return replace(
        info,
        digest=group.digest.keyed(info.digest),
        weight=float(info.rows),
        smoothness=1.0,
        classes="",
        sealed=group.first.seal(("facts", info.id), facts),
    )


def opened_info(group: GroupKey, info: PartitionInfo) -> PartitionInfo:
    """The facts about a partition, with those that were sealed; its mark takes the place of the seal.

    Raises
    ------
    IntegrityError
        No worker of this group sealed them.
    """
    facts = group.first.open(("facts", info.id), info.sealed)
    weight, smoothness, classes, mark = _FACTS.unpack(facts)
    classes = classes.rstrip(b"\0").decode()
    return replace(info, weight=weight, smoothness=smoothness, classes=classes, sealed=mark)


def content_mark(group: GroupKey, info: PartitionInfo) -> bytes:
    """What tells the content of a partition apart for workers that do not store it, of 16 bytes.

    It follows from the unkeyed digest, but does not show that a worker has the content.
    """
    return group.first.mark(info.id, info.digest)


def sealed_number(group: GroupKey, kind: str, round_: int, number: int, value: float) -> bytes:
    """A sealed number of a round: the loss of partition `number`, or the penalty or residual of a worker."""
    return group.seal((kind, round_, number), _NUMBER.pack(value))


def opened_number(group: GroupKey, kind: str, round_: int, number: int, sealed: bytes) -> float:
    """The number; IntegrityError if no worker of this group sealed it for this round."""
    return float(_NUMBER.unpack(group.open((kind, round_, number), sealed))[0])


def number_bytes(settings: Settings) -> int:
    """Bytes of a number of a round as it travels: workers read them if they decide when training ends."""
    return SEALED_NUMBER_BYTES if settings.tolerance else np.dtype(settings.dtype).itemsize


def tagged_number(group: GroupKey, kind: str, round_: int, number: int, value: float, size: int) -> bytes:
    """What stands for a number of a round that is only compared, of `size` bytes; else as `sealed_number`."""
    return group.tag(_TAGGED.pack(kind.encode(), round_, number, value), size)


def split(told: bytes, size: int) -> list[bytes]:
    """Some bytes in pieces of equal size; RemoteProtocolError if they are no whole number of pieces."""
    if len(told) % size:
        raise RemoteProtocolError(f"{len(told)} bytes are no whole number of pieces of {size}")
    return [told[start : start + size] for start in range(0, len(told), size)]


def sealed_state(group: GroupKey, round_: int, check: bytes, state: Bytes, *, over: bool) -> Bytes:
    """A state of the training for another worker: its check, which the server compares, and the sealed state.

    Parameters
    ----------
    round_ : int
        The state is that at the beginning of this round.
    check : bytes
        The check of the state (`WorkerSide.state_check`).
    state : uint8 array
    over : bool
        Whether the training ended before this round.
    """
    content = bytes([over]) + state.tobytes()
    return np.frombuffer(check + group.seal(("state", round_, check), content), np.uint8)


def opened_state(group: GroupKey, round_: int, body: Bytes) -> tuple[Bytes, bool, bytes]:
    """A state, whether the training is over, and the check that came with it.

    Raises
    ------
    IntegrityError
        No worker of this group sealed it for this round.
    """
    check = body[:VECTOR_DIGEST_BYTES].tobytes()
    content = group.open(("state", round_, check), body[VECTOR_DIGEST_BYTES:].tobytes())
    return np.frombuffer(content, np.uint8, offset=1).copy(), content[0] == 1, check


def check_numbers(losses: Sequence[float], penalty: float, residual: float) -> None:
    """Raise IntegrityError if a worker told a loss, penalty or residual that cannot be."""
    told: list[tuple[str, float]] = [*(("loss", loss) for loss in losses), ("penalty", penalty)]
    wrong: list[tuple[str, Any]] = [(what, value) for what, value in told if not 0.0 <= value < np.inf]
    if not residual >= 0.0:
        wrong.append(("residual", residual))
    if wrong:
        (what, value), *_ = wrong
        raise IntegrityError(f"a worker told a {what} of {value}, which cannot be", partitions=[], workers=[])
