"""The server's side of a broadcast in datagrams: what is sent, what workers lack, and what makes up for it.

A round is sent range by range. When all datagrams of a range are on their way, every listener is asked what
it lacks of it; fresh rows make up for the most that any of them lacks, piece by piece, so that one datagram
serves all who lost one, whichever it was. Who heard nothing of a range, or still lacks something after
`MOST_REPAIRS` repairs, or has asked for more in all than it needs, is sent that range on its connection.
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

# Bytes of the datagrams that are handed to the kernel at once: with all their headers below 64 KiB, which is
# what queues with a rate limit let through without taking them apart.
BLOCK = 60_000

MOST_REPAIRS = 8


@dataclass(frozen=True)
class DatagramBlock:
    """Datagrams of `size` bytes one after the other, the last of which may be shorter; `count` of them.

    They carry pieces of one row, which is `fresh` if it repairs.
    """

    datagrams: memoryview
    size: int
    count: int
    fresh: bool = False


@dataclass
class ReceptionCounts:
    """What one worker had of a round, or of several.

    Datagrams that were `sent` at first, those of them that it `lost`, rows of pieces that it `lacked` then,
    and `ranges` that it was sent on its connection. Rows of pieces that it `needed` in all, and those that it
    `asked` for because it lacked them at first or after a repair.
    """

    sent: int = 0
    lost: int = 0
    lacked: int = 0
    ranges: int = 0
    needed: int = 0
    asked: int = 0

    def count(self, sent: int, seen: int, lacked: int) -> None:
        """Add what was sent of a range, what was received of that, and what is lacking."""
        self.sent += sent
        self.lost += max(0, sent - seen)
        self.lacked += lacked

    def add(self, other: ReceptionCounts) -> None:
        """Add another round's."""
        self.sent += other.sent
        self.lost += other.lost
        self.lacked += other.lacked
        self.ranges += other.ranges
        self.needed += other.needed
        self.asked += other.asked


@dataclass(eq=False)
class _Range:
    """How far a range is: the next fresh row, repairs and datagrams so far, and who has not answered yet.

    `lacks` are the rows that each piece lacks at those who have.
    """

    fresh: int
    repairs: int = 0
    datagrams: int = 0
    waiting: set[str] = field(default_factory=set)
    lacks: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


class Broadcast:
    """One round's datagrams.

    Parameters
    ----------
    stream : Stream
    layout : Layout
    rows : sequence of uint8 arrays (R, bytes of the range)
        All rows, range by range; a range must not change from when it is sent until the round is over.
    seed : int
        The plan's.
    own : mapping of worker to sequence of int
        The listeners, and their own rows (`Solver.own`); rows that are nobody's own are not sent.

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
        self._block = memoryview(bytearray(max(BLOCK, layout.piece_bytes + OVERHEAD)))

    @property
    def listeners(self) -> tuple[str, ...]:
        """Those who take part and have not been dropped."""
        return tuple(self._needs)

    @property
    def count(self) -> int:
        """Rows that are sent."""
        return len(self._numbers)

    @property
    def begun(self) -> int:
        """Ranges that were sent, at least in part."""
        return self._begun

    @property
    def settled(self) -> bool:
        """Whether all ranges were sent, and nobody lacks anything of them or has still to say so."""
        return self._begun == len(self._ranges) and not any(r.waiting or r.lacks for r in self._ranges)

    def next_range(self, spare: int = 0) -> Iterator[DatagramBlock]:
        """The datagrams of the next range, with so many fresh rows; each block is valid until the next.

        When they are sent, ask all listeners what they lack of it.
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
        """Fresh rows of the pieces of a range that are lacked; each block is valid until the next.

        When they are sent, ask those who lacked something again.
        """
        sending = self._ranges[index]
        lacked = np.max(list(sending.lacks.values()), axis=0)
        sending.waiting, sending.lacks = set(sending.lacks), {}
        sending.repairs += 1
        first, _ = self.layout.pieces_of(index)
        for i, (number, row) in enumerate(self._fresh_rows(sending, self._rows[index], int(lacked.max()))):
            yield from self._sealed(sending, number, row, first, first + np.flatnonzero(lacked > i))

    def take_report(self, worker: str, index: int, lacks: bytes, seen: int) -> bool:
        """Take in what a listener lacks of a range; whether that was the last answer.

        Parameters
        ----------
        lacks : bytes
            For each piece of the range, how many rows; empty if none.
        seen : int
            Datagrams of the range that it received.

        Raises
        ------
        RemoteProtocolError
            It was not asked, or this is no answer.
        """
        if worker not in self._needs:
            return False
        if not 0 <= index < self._begun or worker not in self._ranges[index].waiting:
            raise RemoteProtocolError(f"worker {worker!r} told unasked what it lacks of range {index}")
        sending = self._ranges[index]
        first, stop = self.layout.pieces_of(index)
        if lacks and (len(lacks) != stop - first or not 0 < max(lacks) <= min(self._needs[worker], 255)):
            raise RemoteProtocolError(f"worker {worker!r} lacks of range {index} what there is not")
        reception, lacked = self.receptions[worker], sum(lacks)
        reception.asked += lacked
        if not sending.repairs:
            # What it has, it has received.
            least = min(self._needs[worker] * (stop - first) - lacked, sending.datagrams)
            reception.count(sending.datagrams, max(seen, least), lacked)
        sending.waiting.discard(worker)
        if lacks:
            sending.lacks[worker] = np.frombuffer(lacks, np.uint8)
        return not sending.waiting

    def sent(self, index: int) -> int:
        """Datagrams of a range that were sent so far."""
        return self._ranges[index].datagrams

    def range_to_repair(self) -> int | None:
        """The first range that all have answered for and some lack something of, if there is one."""
        return next((i for i, r in enumerate(self._ranges[: self._begun]) if r.lacks and not r.waiting), None)

    def repaired(self, index: int) -> bool:
        """Whether a range was sent more than once."""
        return self._ranges[index].repairs > 0

    def waiting(self, index: int) -> tuple[str, ...]:
        """Those who have still to answer for a range."""
        return tuple(self._ranges[index].waiting)

    def unanswered(self) -> dict[str, list[int]]:
        """Those who have still to answer, and all ranges of which it is not known that they have them."""
        late = {worker for sending in self._ranges for worker in sending.waiting}
        return {
            worker: [i for i, r in enumerate(self._ranges) if worker in r.waiting or worker in r.lacks]
            for worker in sorted(late)
        }

    def lacking(self, index: int) -> bool:
        """Whether somebody who has answered lacks something of a range."""
        return bool(self._ranges[index].lacks)

    def take_unrepairable(self, index: int) -> list[str]:
        """Those whom a repair of a range would not help: they are to be sent it on their connections."""
        sending = self._ranges[index]
        found = [
            worker
            for worker, lacks in sending.lacks.items()
            if sending.repairs >= MOST_REPAIRS
            or lacks.min() >= min(self._needs[worker], 255)
            or self.receptions[worker].asked > self.receptions[worker].needed
        ]
        for worker in found:
            del sending.lacks[worker]
            self.receptions[worker].ranges += 1
        return found

    def drop(self, worker: str) -> None:
        """Go on without a listener."""
        self._needs.pop(worker, None)
        for sending in self._ranges:
            sending.waiting.discard(worker)
            sending.lacks.pop(worker, None)

    def _fresh_rows(self, sending: _Range, rows: Bytes, count: int) -> Iterator[tuple[int, Bytes]]:
        """So many rows that nobody has yet, with their numbers."""
        numbers = range(sending.fresh, min(sending.fresh + count, MAX_ROW_NUMBERS))
        sending.fresh = numbers.stop
        if len(numbers):
            yield from zip(numbers, self._fresh.combine(numbers, rows), strict=True)

    def _sealed(
        self, sending: _Range, number: int, row: Bytes, first: int, pieces: NDArray[np.intp]
    ) -> Iterator[DatagramBlock]:
        """Datagrams of some pieces of a row of a range, in blocks; all but the last of them have one size."""
        content, block, step = memoryview(row.data), self._block, self.layout.piece_bytes
        size = step + OVERHEAD
        most = max(1, BLOCK // size)
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
