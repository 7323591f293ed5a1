"""Rows of bytes in memory, checked and with their addresses, as coding kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import UsageError

_UINT8 = np.dtype(np.uint8)


@dataclass
class ByteRows:
    """`count` rows of `length` bytes each. A row is contiguous; different rows may lie anywhere in memory.

    `blocks` are the rows, 2-D arrays of several and 1-D arrays of one; `addresses` is intp, shape (count,).
    The first row in memory starts at `low`, the last one at `high`.
    """

    blocks: Sequence[Bytes]
    addresses: NDArray[np.intp]
    length: int
    low: int
    high: int

    @cached_property
    def views(self) -> Bytes | Sequence[Bytes]:
        """The rows as one 2-D array if they are stored so, else as a sequence of rows."""
        if len(self.blocks) == 1 and self.blocks[0].ndim == 2:
            return self.blocks[0]
        return [row for block in self.blocks for row in (block if block.ndim == 2 else (block,))]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.addresses)

    def take(self, index: NDArray[np.intp]) -> ByteRows:
        """Select the rows that `index` names, in its order."""
        if len(index) == self.count:  # indices are ascending and distinct, so these are all rows
            return self
        views = self.views
        return replace(self, blocks=[views[i] for i in index], addresses=self.addresses[index])

    def cut(self, start: int, stop: int) -> list[Bytes]:
        """Bytes `start`…`stop` of every row."""
        return [row[start:stop] for row in self.views]

    def pack(self, start: int, stop: int, into: Bytes) -> None:
        """Copy bytes `start`…`stop` of every row to the contiguous array `into`, (count, stop - start)."""
        if isinstance(self.views, np.ndarray):
            into[:] = self.views[:, start:stop]
        else:
            np.concatenate(self.cut(start, stop), out=into.reshape(-1))


def check_rows(argument: str, rows: Bytes | Sequence[Bytes], count: int, length: int | None) -> ByteRows:
    """Check `argument`: `count` contiguous rows of uint8, all of `length` bytes (None: of any one length).

    In a sequence, a 1-D array is a row and a 2-D array several.

    Raises
    ------
    UsageError
        One of these rules is broken, or there is no row from which the length follows. The error names
        `argument`.
    """
    if isinstance(rows, np.ndarray):
        found = _from_matrix(argument, rows)
    else:
        found = _from_sequence(argument, rows, length)
    if found.count != count:
        raise UsageError(argument, f"must have {count} rows", found.count)
    if length is not None and found.length != length:
        raise UsageError(argument, f"must have rows of {length} bytes", found.length)
    return found


def check_apart(sources: ByteRows, out: ByteRows) -> None:
    """Raise UsageError unless no row of `out` overlaps another one or a row of `sources`."""
    if out.count == 0 or out.length == 0:
        return
    if len(out.blocks) == 1:
        apart = out.count == 1 or abs(out.blocks[0].strides[0]) >= out.length
    else:
        apart = bool((np.diff(np.sort(out.addresses)) >= out.length).all())
    if not apart:
        raise UsageError("out", "must have rows that do not overlap", "two that do")
    if out.high + out.length <= sources.low or sources.high + sources.length <= out.low:
        return  # the common case: single rows need not be compared
    starts = np.sort(out.addresses)
    after = np.searchsorted(starts, sources.addresses, side="right")
    hits_before = (after > 0) & (sources.addresses - starts[after - 1] < out.length)
    next_start = starts[np.minimum(after, out.count - 1)]
    hits_after = (after < out.count) & (next_start - sources.addresses < out.length)
    if (hits_before | hits_after).any():
        raise UsageError("out", "must not overlap the sources", "a row that does")


def _from_matrix(argument: str, rows: Bytes) -> ByteRows:
    if rows.ndim != 2 or rows.dtype != _UINT8:
        raise UsageError(argument, "must be a 2-D array of uint8", f"{rows.ndim}-D {rows.dtype}")
    count, length = rows.shape
    stride, step = rows.strides
    if count and length > 1 and step != 1:
        raise UsageError(argument, "must have contiguous rows", f"strides {rows.strides}")
    first = address(rows)
    last = first + stride * max(count - 1, 0)
    addresses = np.arange(first, first + stride * count, stride) if stride else np.full(count, first)
    return ByteRows((rows,), addresses, length, min(first, last), max(first, last))


def _from_sequence(argument: str, rows: Sequence[Bytes], length: int | None) -> ByteRows:
    blocks = [_block(f"{argument}[{i}]", row) for i, row in enumerate(rows)]
    if length is None and blocks:
        length = blocks[0].length
    if length is None:
        raise UsageError(argument, "without rows must be an array of shape (0, L), or come with out", rows)
    for i, block in enumerate(blocks):
        if block.length != length:
            raise UsageError(f"{argument}[{i}]", f"must be {length} bytes long", block.length)
    there = [block for block in blocks if block.count]
    addresses = np.concatenate([block.addresses for block in there]) if there else np.empty(0, np.intp)
    low, high = min((b.low for b in there), default=0), max((b.high for b in there), default=0)
    return ByteRows([block.blocks[0] for block in there], addresses, length, low, high)


def _block(argument: str, rows: Bytes) -> ByteRows:
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return _from_matrix(argument, rows)
    if not isinstance(rows, np.ndarray) or rows.dtype != _UINT8 or rows.ndim != 1:
        raise UsageError(argument, "must be a 1-D array of uint8", rows)
    if len(rows) > 1 and rows.strides[0] != 1:
        raise UsageError(argument, "must be contiguous", f"stride {rows.strides[0]}")
    at = address(rows)
    return ByteRows((rows,), np.array([at], np.intp), len(rows), at, at)


def address(rows: NDArray[Any]) -> int:
    """The address of an array's first byte; `ctypes.data` would take ten times as long."""
    at: int = rows.__array_interface__["data"][0]
    return at
