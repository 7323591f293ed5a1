"""Receives the rows of one round after another from a multicast group."""

from __future__ import annotations

from collections.abc import Callable

from asyncdmtl.multicast.datagrams import Layout, Stream
from asyncdmtl.multicast.receiving import Reassembly
from asyncdmtl.net.udp import DRAIN_READS, GroupReceiver
from asyncdmtl.plan.codes.repair import Solver


class MulticastReceiver:
    """Receives one round at a time from a group.

    Parameters
    ----------
    receiver : GroupReceiver

    Attributes
    ----------
    receiver : GroupReceiver
    round : Reassembly or None
        The rows of the current round that have arrived.
    """

    def __init__(self, receiver: GroupReceiver) -> None:
        self.receiver = receiver
        self.round: Reassembly | None = None

    def begin(
        self,
        stream: Stream,
        layout: Layout,
        solver: Solver,
        on_progress: Callable[[], None],
    ) -> Reassembly:
        """Begin to receive a round, and end the round before.

        Parameters
        ----------
        stream : Stream
        layout : Layout
        solver : Solver
        on_progress : callable
            Called when a range begins to arrive or is complete.
        """
        begun = Reassembly(stream, layout, solver, self.receiver.counts)

        def take(datagram: memoryview) -> None:
            before = begun.reached
            if begun.take(datagram) is not None or begun.reached > before:
                on_progress()

        self.receiver.listen(stream.name, take)
        # Read the waiting datagrams of the round before, so that they do not count as lost.
        self.receiver.read(DRAIN_READS)
        self.end()
        self.round = begun
        return begun

    def lacks(self, index: int) -> tuple[bytes, int]:
        """The lacking rows of each piece of a range, and the count of its datagrams that have arrived."""
        assert self.round is not None
        self.receiver.read(DRAIN_READS)
        return self.round.lacks(index), self.round.seen(index)

    def end(self) -> None:
        """Stop receiving."""
        if self.round is not None:
            self.receiver.forget(self.round.stream.name)
            self.round = None
