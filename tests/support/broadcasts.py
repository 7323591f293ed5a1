"""A plan, its rows in a round, and both ends of their broadcast, without a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.multicast.datagrams import Layout, Stream
from asyncdmtl.multicast.receiving import DatagramCounts, Reassembly
from asyncdmtl.multicast.sending import Broadcast, DatagramBlock
from asyncdmtl.plan.codes.repair import Solver
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

KEY = bytes(32)


class Round:
    """One round of a plan with random updates; `rows` are those of the downlink, range by range."""

    def __init__(self, placement: Placement, length: int, range_bytes: int, piece_bytes: int) -> None:
        rng = np.random.default_rng(len(placement.workers))
        self.plan = plan = make_plan(placement, "relay")
        updates = rng.integers(0, 256, (len(placement.partitions), length), dtype=np.uint8)
        self._known = [plan.vector_format(length, np.uint8).pack(updates[list(s)]) for s in placement.stored]
        down = plan.recombine([plan.encode(k, updates[list(s)]) for k, s in enumerate(placement.stored)])
        self.layout = layout = Layout(down.shape[1], range_bytes, piece_bytes)
        self.rows = [np.ascontiguousarray(down[:, slice(*layout.span(i))]) for i in range(layout.ranges)]
        self.solvers = [Solver.of(plan, k) for k in range(len(plan.deliveries))]
        self.workers = placement.workers

    def stream(self) -> Stream:
        """The round's stream, made anew as each end makes it."""
        return Stream.of_round(KEY, 0, self.plan.digest, 0)

    def broadcast(self) -> Broadcast:
        """The server's end."""
        own = {name: s.own for name, s in zip(self.workers, self.solvers, strict=True)}
        return Broadcast(self.stream(), self.layout, self.rows, self.plan.seed, own)

    def reassembly(self, worker: int, counts: DatagramCounts | None = None) -> Reassembly:
        """A worker's end."""
        return Reassembly(self.stream(), self.layout, self.solvers[worker], counts or DatagramCounts())

    def known(self, worker: int, index: int) -> Bytes:
        """A range of the side information of a worker."""
        return self._known[worker][:, slice(*self.layout.span(index))]

    def own(self, worker: int, index: int) -> Bytes:
        """A range of the rows that a worker needs."""
        return self.rows[index][list(self.solvers[worker].own)]

    def check(self, worker: int, reassembly: Reassembly) -> None:
        """Assert that a worker has all of its rows."""
        for index in range(self.layout.ranges):
            assert reassembly.complete(index)
            handed = reassembly.hand_out(index, self.known(worker, index))
            assert np.array_equal(handed, self.own(worker, index))


def datagrams(blocks: Iterator[DatagramBlock]) -> list[bytes]:
    """All datagrams of some blocks."""
    found = []
    for block in blocks:
        content = bytes(block.datagrams)
        cut = [content[at : at + block.size] for at in range(0, len(content), block.size)]
        assert len(cut) == block.count
        found += cut
    return found
