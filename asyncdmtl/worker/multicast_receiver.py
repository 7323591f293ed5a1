"""How a worker receives the rows of one round after another from a multicast group."""

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
        What is here of the round that is being received.
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
        """Receive a round from now on, and no earlier round any more.

        Parameters
        ----------
        stream : Stream
        layout : Layout
        solver : Solver
        on_progress : callable
            Called when a range begins to arrive, or is complete.
        """
        begun = Reassembly(stream, layout, solver, self.receiver.counts)

        def take(datagram: memoryview) -> None:
            before = begun.reached
            if begun.take(datagram) is not None or begun.reached > before:
                on_progress()

        self.receiver.listen(stream.name, take)
        # Datagrams of the round before that wait in the socket were not lost, whether needed or not.
        self.receiver.read(DRAIN_READS)
        self.end()
        self.round = begun
        return begun

    def lacks(self, index: int) -> tuple[bytes, int]:
        """What is lacking of each piece of a range, and how many datagrams of the range have arrived."""
        assert self.round is not None
        self.receiver.read(DRAIN_READS)
        return self.round.lacks(index), self.round.seen(index)

    def end(self) -> None:
        """Receive no round any more."""
        if self.round is not None:
            self.receiver.forget(self.round.stream.name)
            self.round = None
