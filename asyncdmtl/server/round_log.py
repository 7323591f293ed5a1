"""A compact log of the records of all rounds, since a long run has a hundred thousand rounds."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, overload

from asyncdmtl.server.records import RoundRecord

# The fields of a record with the types of their columns: `q` for whole numbers and `d` for floats, of 8 bytes
# each. So a round takes 56 bytes; an object would take eight times as many.
_COLUMNS = {field.name: "d" if field.type == "float" else "q" for field in fields(RoundRecord)}


class RoundLog(Sequence[RoundRecord]):
    """Records of rounds, in the order of the rounds.

    Parameters
    ----------
    records : iterable of RoundRecord, optional
        The first records.
    """

    def __init__(self, records: Iterable[RoundRecord] = ()) -> None:
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in _COLUMNS.items()}
        for record in records:
            self.append(record)

    def append(self, record: RoundRecord) -> None:
        """Add the record of the next round."""
        for name, column in self._columns.items():
            column.append(getattr(record, name))

    def copy(self) -> RoundLog:
        """A log with the same records."""
        copied = RoundLog()
        copied._columns = {name: column[:] for name, column in self._columns.items()}
        return copied

    def before(self, round_: int) -> RoundLog:
        """A log with the records of the rounds before this one."""
        return RoundLog(record for record in self if record.round < round_)

    def pack(self) -> dict[str, bytes]:
        """The columns as little-endian bytes, by name."""
        return {name: _little_endian(column).tobytes() for name, column in self._columns.items()}

    @classmethod
    def unpack(cls, columns: dict[str, bytes]) -> RoundLog:
        """Read the result of `pack`; KeyError, TypeError or ValueError if `columns` are something else."""
        log = cls()
        for name, code in _COLUMNS.items():
            column: array[Any] = array(code)
            column.frombytes(columns[name])
            log._columns[name] = _little_endian(column)
        if len({len(column) for column in log._columns.values()}) > 1:
            raise ValueError("the columns of the rounds differ in length")
        return log

    def __len__(self) -> int:
        return len(self._columns["round"])

    @overload
    def __getitem__(self, index: int) -> RoundRecord: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RoundRecord, ...]: ...

    def __getitem__(self, index: int | slice) -> RoundRecord | tuple[RoundRecord, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        return RoundRecord(*(column[index] for column in self._columns.values()))

    def __iter__(self) -> Iterator[RoundRecord]:
        return (RoundRecord(*values) for values in zip(*self._columns.values(), strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoundLog) and self._columns == other._columns

    __hash__ = None  # type: ignore[assignment]


def _little_endian(column: array[Any]) -> array[Any]:
    """The column in little-endian order, by swapping bytes on a big-endian machine; it is its own inverse."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column
