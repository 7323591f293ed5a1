"""The rows that one worker needs in one round, reassembled from datagrams that come in any order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import UsageError
from asyncdmtl.multicast.datagrams import HEADER, OVERHEAD, Layout, Stream
from asyncdmtl.plan.codes.repair import Solver

# The largest count of lacking rows of a piece in a loss report, which has one byte for each piece.
MAX_REPORTED = 255


@dataclass
class DatagramCounts:
    """Counts of the datagrams that a worker received.

    Attributes
    ----------
    taken : int
        Datagrams whose rows were used.
    repaired : int
        Those of them that replace lost ones.
    surplus : int
        Datagrams that were not needed, and not decrypted.
    foreign : int
        Datagrams of no stream that the worker receives: of other programs, or of other rounds.
    malformed : int
        Datagrams of a wrong size or with a number that does not exist.
    forged : int
        Datagrams whose tag does not match.
    """

    taken: int = 0
    repaired: int = 0
    surplus: int = 0
    foreign: int = 0
    malformed: int = 0
    forged: int = 0


class Reassembly:
    """The rows of one round that one worker has received so far.

    The plan sends each worker certain rows, its own rows. A worker needs as many rows of each piece as it has
    own rows, but any rows of the broadcast serve. Received own rows are written into their places, and other
    rows into places that are empty; in the end, the lost own rows are computed from these. Memory holds the
    own rows and some bytes for each of their pieces. Datagrams of a complete piece are dropped without being
    decrypted.

    Parameters
    ----------
    stream : Stream
    layout : Layout
    solver : Solver
    counts : DatagramCounts
        The counts, which this class updates.

    Attributes
    ----------
    reached : int
        The last range of which a datagram has been used; -1 at first.
    """

    def __init__(self, stream: Stream, layout: Layout, solver: Solver, counts: DatagramCounts) -> None:
        self.stream = stream
        self.layout = layout
        self.counts = counts
        self.reached = -1
        self._solver = solver
        self._rows: list[Bytes | None] = [None] * layout.ranges
        self._views: list[list[memoryview]] = [[] for _ in range(layout.ranges)]
        self._starts, self._stops = layout.places
        self._place_of = {number: place for place, number in enumerate(solver.own)}
        self._has = [bytearray(layout.pieces) for _ in solver.own]
        self._lacking = [len(solver.own)] * layout.pieces
        self._filled: dict[int, dict[int, int]] = {}
        self._left = [0] * layout.ranges
        self._seen = [0] * layout.ranges
        if solver.own:
            spans = map(layout.pieces_of, range(layout.ranges))
            self._left = [stop - first for first, stop in spans]

    def complete(self, index: int) -> bool:
        """Whether enough rows of all pieces of a range have arrived."""
        return not self._left[index]

    def seen(self, index: int) -> int:
        """Count of the received datagrams of a range, needed or not."""
        return self._seen[index]

    def lacks(self, index: int) -> bytes:
        """The number of lacking rows of each piece of a range, one byte each; empty if no row is lacking."""
        if self.complete(index):
            return b""
        first, stop = self.layout.pieces_of(index)
        return bytes(min(count, MAX_REPORTED) for count in self._lacking[first:stop])

    def take(self, datagram: memoryview) -> int | None:
        """Take in a datagram of this stream; return the range that it completes, or None."""
        if len(datagram) <= OVERHEAD:
            self.counts.malformed += 1
            return None
        _, number, piece = HEADER.unpack_from(datagram)
        if piece >= len(self._starts):
            self.counts.malformed += 1
            return None
        start, stop = self._starts[piece], self._stops[piece]
        if len(datagram) != stop - start + OVERHEAD:
            self.counts.malformed += 1
            return None
        index = piece // self.layout.pieces_per_range
        self._seen[index] += 1
        if not self._lacking[piece]:
            self.counts.surplus += 1
            return None
        place = self._place_of.get(number)
        if place is None or self._has[place][piece] or (place in self._filled.get(piece, ())):
            place = self._empty_place(number, piece)
            if place is None:
                self.counts.surplus += 1
                return None
        if not self._views[index]:
            self._make_room(index)
        if not self.stream.open(datagram, self._views[index][place][start:stop]):
            self.counts.forged += 1
            return None
        self.counts.taken += 1
        if index > self.reached:
            self.reached = index
        if self._solver.own[place] == number:
            self._has[place][piece] = 1
        else:
            self._filled.setdefault(piece, {})[place] = number
            self.counts.repaired += 1
        self._lacking[piece] -= 1
        return None if self._lacking[piece] else self._settle(index, piece)

    def fill(self, index: int, rows: Bytes) -> None:
        """Take the own rows of a range that came over TCP, (len(own), bytes of the range)."""
        start, stop = self.layout.span(index)
        if rows.shape != (len(self._solver.own), stop - start):
            raise UsageError(
                "rows", f"must have {(len(self._solver.own), stop - start)} as shape", rows.shape
            )
        if self.complete(index):
            return
        first, end = self.layout.pieces_of(index)
        self._lacking[first:end] = [0] * (end - first)
        for piece in range(first, end):
            self._filled.pop(piece, None)
        self._rows[index], self._left[index] = rows, 0

    def hand_out(self, index: int, known: Bytes) -> Bytes:
        """The own rows of a complete range; lost ones are computed from the rows in their places.

        Each range can be handed out once.

        Parameters
        ----------
        known : uint8 array (packets that are known, bytes of the range)
            The side information.

        Returns
        -------
        rows : uint8 array (len(own), bytes of the range)
        """
        rows = self._rows[index]
        if rows is None:
            return np.empty((0, known.shape[1]), np.uint8)
        first, end = self.layout.pieces_of(index)
        # Neighbouring pieces that lack the same rows are solved together.
        gaps = [tuple(sorted(self._filled.pop(piece, {}).items())) for piece in range(first, end)]
        piece = first
        for filled, alike in itertools.groupby(gaps):
            last = piece + len(list(alike)) - 1
            if filled:
                cut = slice(self._starts[piece], self._stops[last])
                self._solver.solve(filled, [row[cut] for row in rows], [row[cut] for row in known])
            piece = last + 1
        self._rows[index], self._views[index] = None, []
        return rows

    def _make_room(self, index: int) -> None:
        """Allocate memory for the own rows of a range; called at its first datagram."""
        start, stop = self.layout.span(index)
        rows = self._rows[index] = np.empty((len(self._solver.own), stop - start), np.uint8)
        self._views[index] = [memoryview(row.data) for row in rows]

    def _empty_place(self, number: int, piece: int) -> int | None:
        """A free place for a row that is no own row; None if the row has arrived already or is of no use."""
        filled = self._filled.get(piece, {})
        own = self._place_of.get(number)
        here = number in filled.values() or (own is not None and self._has[own][piece])
        if here or not self._solver.useful(number):
            return None
        empty = (p for p, has in enumerate(self._has) if not has[piece] and p not in filled)
        return next(empty)

    def _settle(self, index: int, piece: int) -> int | None:
        """Mark a piece complete if it has enough rows; return the range if that completes the range."""
        if (filled := self._filled.get(piece)) is not None:
            for place in self._solver.redundant(tuple(filled.items())):
                del filled[place]
                self._lacking[piece] += 1
            if self._lacking[piece]:
                return None
        self._left[index] -= 1
        return None if self._left[index] else index
