"""Splitting the declaration of a worker with many partitions, or with tables of many columns.

A head has limits of bytes and of lists, and a survey needs a few hundred bytes and three lists for each
column. If a declaration does not fit in one head, it is sent in pieces (`DeclareSome`), the last of which is
a `Declare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.protocol.messages.base import pack_declaration

# The most bytes and lists of a piece: far below the limits of a head, so that reading it delays no heartbeat.
# A single partition may have more, up to the limits of a head.
PIECE_BYTES, PIECE_LISTS = 1 << 20, 50_000

# The most bytes and lists of a single partition: a little less than those of a head that a server accepts.
_MOST_BYTES, _MOST_LISTS = (1 << 23) - (1 << 16), 399_000

# The most pieces of one declaration, all of which a server must hold in memory.
MAX_PIECES = 256


def pieces(declared: Sequence[Declaration]) -> Iterator[tuple[Declaration, ...]]:
    """Declarations in groups that each fit in a head, in order; one empty group if there are none.

    Raises
    ------
    DataError
        A partition has too many columns, or there are too many partitions with many columns.
    """
    groups: list[list[Declaration]] = [[]]
    size = lists = 0
    for part in declared:
        packed = pack_declaration(part)
        more, own = len(msgpack.packb(packed)), _lists(packed)
        if more > _MOST_BYTES or own > _MOST_LISTS:
            columns = len(part.survey.get("columns", ()))
            rule = "has too many columns to be declared (--features and --omit choose some)"
            raise DataError(f"partition {part.id!r}", rule, columns)
        if groups[-1] and (size + more > PIECE_BYTES or lists + own > PIECE_LISTS):
            groups.append([])
            size = lists = 0
        groups[-1].append(part)
        size, lists = size + more, lists + own
    if len(groups) > MAX_PIECES:
        rule = f"have too many columns together to be declared by one worker, {len(declared)} partitions of"
        raise DataError("partitions", rule, len(declared[0].survey.get("columns", ())))
    return map(tuple, groups)


def _lists(value: Any) -> int:
    """Number of lists and maps in a value of plain types."""
    if isinstance(value, dict):
        return 1 + sum(map(_lists, value.values()))
    return 1 + sum(map(_lists, value)) if isinstance(value, list) else 0
