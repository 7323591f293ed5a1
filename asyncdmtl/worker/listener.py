"""A worker's side of one broadcast round: datagrams come from the group and become rows."""

from __future__ import annotations

from collections.abc import Callable

from asyncdmtl.multicast.datagrams import Layout, Stream
from asyncdmtl.multicast.receiving import Reassembly
from asyncdmtl.net.udp import ALL, GroupReceiver
from asyncdmtl.plan.codes.repair import Solver


class Listener:
    """Receives one round at a time from a group.

    Parameters
    ----------
    receiver : GroupReceiver

    Attributes
    ----------
    round : Reassembly or None
        The round that it listens to.
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
        """Listen to a round, and to none before it any more.

        `on_progress` is called when a range begins to come, or is complete.
        """
        begun = Reassembly(stream, layout, solver, self.receiver.heard)

        def take(datagram: memoryview) -> None:
            before = begun.reached
            if begun.take(datagram) is not None or begun.reached > before:
                on_progress()

        self.receiver.listen(stream.name, take)
        # What has come of the round before, needed or not, was not lost.
        self.receiver.read(ALL)
        self.end()
        self.round = begun
        return begun

    def lacks(self, index: int) -> tuple[bytes, int]:
        """What is lacking of a range, for each piece of it, and how many datagrams of it came."""
        assert self.round is not None
        self.receiver.read(ALL)
        return self.round.lacks(index), self.round.seen(index)

    def end(self) -> None:
        """Listen to nothing."""
        if self.round is not None:
            self.receiver.forget(self.round.stream.name)
            self.round = None
