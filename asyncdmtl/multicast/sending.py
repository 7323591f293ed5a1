"""The server's side of a multicast round: the datagrams that it sends, and those that repair losses.

A round is sent range by range. When all datagrams of a range have been sent, the server asks every listener
how many rows it lacks. For each piece it then sends as many fresh rows as the listener with the largest loss
lacks. One fresh row serves all listeners that lost a row, even if they lost different rows. A listener gets a
range over TCP if it received nothing of the range, if it still lacks rows after `MAX_REPAIRS` repairs, or if
it has reported in all more lacking rows than it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.multicast.datagrams import MAX_ROW_NUMBERS, OVERHEAD, Layout, Stream
from asyncdmtl.plan.codes.repair import FreshRows

# Bytes of the datagrams that are passed to the kernel in one call. With all headers they stay below 64 KiB,
# which queueing disciplines with a rate limit pass without splitting them.
BLOCK_BYTES = 60_000

# The most repairs of a range by datagrams. Even if half of all datagrams are lost, only one row in 256 fails
# in all of them.
MAX_REPAIRS = 8


@dataclass(frozen=True)
class DatagramBlock:
    """Consecutive datagrams with pieces of one row.

    Attributes
    ----------
    datagrams : memoryview
        One after the other.
    size : int
        Bytes of each; the last one may be shorter.
    count : int
    fresh : bool
        Whether the row repairs losses.
    """

    datagrams: memoryview
    size: int
    count: int
    fresh: bool = False


@dataclass
class ReceptionCounts:
    """Counts of the losses of one worker, in one round or in several.

    Attributes
    ----------
    sent : int
        Datagrams that were sent before any repair.
    lost : int
        Those of them that the worker did not receive.
    lacked : int
        Rows of pieces that it lacked before any repair.
    ranges : int
        Ranges that were sent to it over TCP.
    needed : int
        Rows of pieces that it needed in all.
    asked : int
        Rows of pieces that it lacked in all, before repairs and after each of them.
    """

    sent: int = 0
    lost: int = 0
    lacked: int = 0
    ranges: int = 0
    needed: int = 0
    asked: int = 0

    def count(self, sent: int, seen: int, lacked: int) -> None:
        """Add one range: datagrams that were sent and seen, and rows that are lacking."""
        self.sent += sent
        self.lost += max(0, sent - seen)
        self.lacked += lacked

    def add(self, other: ReceptionCounts) -> None:
        """Add the counts of another round."""
        self.sent += other.sent
        self.lost += other.lost
        self.lacked += other.lacked
        self.ranges += other.ranges
        self.needed += other.needed
        self.asked += other.asked


@dataclass(eq=False)
class _Range:
    """The progress of one range.

    Attributes
    ----------
    fresh : int
        The number of the next fresh row.
    repairs, datagrams : int
        Repairs and datagrams so far.
    waiting : set of str
        Listeners that were asked and have not answered.
    lacks : dict of str to uint8 array (pieces of the range,)
        The lacking rows of each piece, for each listener that has answered and lacks some.
    """

    fresh: int
    repairs: int = 0
    datagrams: int = 0
    waiting: set[str] = field(default_factory=set)
    lacks: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


class Broadcast:
    """The datagrams of one round, and the progress of its listeners.

    Parameters
    ----------
    stream : Stream
    layout : Layout
    rows : sequence of uint8 arrays (R, bytes of the range)
        All rows, range by range. A range must not change after it was sent, until the round is over.
    seed : int
        The plan's seed.
    own : mapping of worker to sequence of int
        The own rows of each listener (`Solver.own`). Rows that no listener needs are not sent.

    Attributes
    ----------
    receptions : dict of worker to ReceptionCounts
    """

    def __init__(
        self,
        stream: Stream,
        layout: Layout,
        rows: Sequence[Bytes],
        seed: int,
        own: Mapping[str, Sequence[int]],
    ) -> None:
        self.layout = layout
        self.receptions = {worker: ReceptionCounts() for worker in own}
        self._stream = stream
        self._rows = rows
        self._needs = {worker: len(numbers) for worker, numbers in own.items()}
        for worker, needed in self._needs.items():
            self.receptions[worker].needed = needed * layout.pieces
        self._numbers = sorted({number for numbers in own.values() for number in numbers})
        self._fresh = FreshRows(len(rows[0]), seed)
        self._ranges = [_Range(len(rows[0])) for _ in range(layout.ranges)]
        self._begun = 0
        self._block = memoryview(bytearray(max(BLOCK_BYTES, layout.piece_bytes + OVERHEAD)))

    @property
    def listeners(self) -> tuple[str, ...]:
        """The workers that receive the round and have not been dropped."""
        return tuple(self._needs)

    @property
    def count(self) -> int:
        """Count of the rows that are sent."""
        return len(self._numbers)

    @property
    def begun(self) -> int:
        """Count of the ranges that were sent, at least in part."""
        return self._begun

    @property
    def settled(self) -> bool:
        """Whether all ranges were sent, and all listeners have reported that they lack nothing."""
        return self._begun == len(self._ranges) and not any(r.waiting or r.lacks for r in self._ranges)

    def next_range(self, spare: int = 0) -> Iterator[DatagramBlock]:
        """The datagrams of the next range, with `spare` fresh rows; each block is valid until the next one.

        After they were sent, the caller must ask all listeners which rows of the range they lack.
        """
        index = self._begun
        self._begun += 1
        sending = self._ranges[index]
        sending.waiting = set(self._needs)
        first, stop = self.layout.pieces_of(index)
        whole = np.arange(first, stop)
        rows = self._rows[index]
        for number in self._numbers:
            yield from self._sealed(sending, number, rows[number], first, whole)
        for number, row in self._fresh_rows(sending, rows, spare):
            yield from self._sealed(sending, number, row, first, whole)

    def repair(self, index: int) -> Iterator[DatagramBlock]:
        """Fresh rows of the pieces of a range that are lacking; each block is valid until the next one.

        After they were sent, the caller must ask the listeners in `waiting` again.
        """
        sending = self._ranges[index]
        lacked = np.max(list(sending.lacks.values()), axis=0)
        sending.waiting, sending.lacks = set(sending.lacks), {}
        sending.repairs += 1
        first, _ = self.layout.pieces_of(index)
        for i, (number, row) in enumerate(self._fresh_rows(sending, self._rows[index], int(lacked.max()))):
            yield from self._sealed(sending, number, row, first, first + np.flatnonzero(lacked > i))

    def take_report(self, worker: str, index: int, lacks: bytes, seen: int) -> bool:
        """Take in the loss report of a listener; return whether it was the last one that was due.

        Parameters
        ----------
        lacks : bytes
            The number of lacking rows of each piece of the range, one byte each; empty if no row is lacking.
        seen : int
            Datagrams of the range that the listener received.

        Raises
        ------
        RemoteProtocolError
            The listener was not asked, or claims to lack more rows than possible.
        """
        if worker not in self._needs:
            return False
        if not 0 <= index < self._begun or worker not in self._ranges[index].waiting:
            raise RemoteProtocolError(f"worker {worker!r} was not asked what it lacks of range {index}")
        sending = self._ranges[index]
        first, stop = self.layout.pieces_of(index)
        if lacks and (len(lacks) != stop - first or not 0 < max(lacks) <= min(self._needs[worker], 255)):
            raise RemoteProtocolError(f"worker {worker!r} cannot lack so much of range {index}")
        reception, lacked = self.receptions[worker], sum(lacks)
        reception.asked += lacked
        if not sending.repairs:
            # The listener must have received the datagrams whose rows it has, even if it reports fewer.
            least = min(self._needs[worker] * (stop - first) - lacked, sending.datagrams)
            reception.count(sending.datagrams, max(seen, least), lacked)
        sending.waiting.discard(worker)
        if lacks:
            sending.lacks[worker] = np.frombuffer(lacks, np.uint8)
        return not sending.waiting

    def sent(self, index: int) -> int:
        """Count of the datagrams of a range that were sent so far."""
        return self._ranges[index].datagrams

    def range_to_repair(self) -> int | None:
        """The first range of which all listeners have answered and some lack rows; None if there is none."""
        return next((i for i, r in enumerate(self._ranges[: self._begun]) if r.lacks and not r.waiting), None)

    def repaired(self, index: int) -> bool:
        """Whether a range was repaired at least once."""
        return self._ranges[index].repairs > 0

    def waiting(self, index: int) -> tuple[str, ...]:
        """The listeners that have not answered for a range."""
        return tuple(self._ranges[index].waiting)

    def unanswered(self) -> dict[str, list[int]]:
        """The listeners that have not answered, each with the ranges that it may lack."""
        late = {worker for sending in self._ranges for worker in sending.waiting}
        return {
            worker: [i for i, r in enumerate(self._ranges) if worker in r.waiting or worker in r.lacks]
            for worker in sorted(late)
        }

    def lacking(self, index: int) -> bool:
        """Whether a listener that has answered lacks rows of a range."""
        return bool(self._ranges[index].lacks)

    def take_unrepairable(self, index: int) -> list[str]:
        """Remove and return the listeners for which another repair of a range is useless.

        The caller must send them the range over TCP.
        """
        sending = self._ranges[index]
        found = [
            worker
            for worker, lacks in sending.lacks.items()
            if sending.repairs >= MAX_REPAIRS
            or lacks.min() >= min(self._needs[worker], 255)
            or self.receptions[worker].asked > self.receptions[worker].needed
        ]
        for worker in found:
            del sending.lacks[worker]
            self.receptions[worker].ranges += 1
        return found

    def drop(self, worker: str) -> None:
        """Remove a listener from the broadcast."""
        self._needs.pop(worker, None)
        for sending in self._ranges:
            sending.waiting.discard(worker)
            sending.lacks.pop(worker, None)

    def _fresh_rows(self, sending: _Range, rows: Bytes, count: int) -> Iterator[tuple[int, Bytes]]:
        """Fresh rows, `count` of them at most, with their numbers."""
        numbers = range(sending.fresh, min(sending.fresh + count, MAX_ROW_NUMBERS))
        sending.fresh = numbers.stop
        if len(numbers):
            yield from zip(numbers, self._fresh.combine(numbers, rows), strict=True)

    def _sealed(
        self, sending: _Range, number: int, row: Bytes, first: int, pieces: NDArray[np.intp]
    ) -> Iterator[DatagramBlock]:
        """Datagrams of some pieces of a row, in blocks; all datagrams but the last have one size."""
        content, block, step = memoryview(row.data), self._block, self.layout.piece_bytes
        size = step + OVERHEAD
        most = max(1, BLOCK_BYTES // size)
        for at in range(0, len(pieces), most):
            end = 0
            for piece in pieces[at : at + most].tolist():
                start = (piece - first) * step
                part = content[start : start + step]
                begin, end = end, end + len(part) + OVERHEAD
                self._stream.seal(number, piece, part, block[begin:end])
            count = min(most, len(pieces) - at)
            sending.datagrams += count
            yield DatagramBlock(block[:end], size, count, number >= self._fresh.rows)
