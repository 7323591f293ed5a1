"""The nodes of a relay join: the relay is a server towards them, for one connection to its parent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import CHALLENGE_BYTES
from asyncdmtl.errors import UsageError, WaitError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.net.authentication import ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.keys import KeyRequest
from asyncdmtl.protocol.messages.registry import Welcome
from asyncdmtl.relay.nodes import SiteChangedError
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.server.admission import Admission, Downlinks
from asyncdmtl.server.agreement import dissenters
from asyncdmtl.server.events import OnEvent
from asyncdmtl.server.group_keys import KeyExchange
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.multicast_server import MulticastServer
from asyncdmtl.server.possession import Asked, Possession, Shown, no_proof
from asyncdmtl.server.records import RunOptions
from asyncdmtl.server.start import RunStart


class PassedChallenges(Possession):
    """Passes the parent's challenges on to all nodes that hold a partition, and has their answers.

    Parameters
    ----------
    challenges : mapping of partition to bytes
        The parent's challenges to the relay, one after the other.
    """

    def __init__(self, challenges: Mapping[str, bytes]) -> None:
        super().__init__()
        self._passed = {
            name: tuple(several[i : i + CHALLENGE_BYTES] for i in range(0, len(several), CHALLENGE_BYTES))
            for name, several in challenges.items()
        }

    def challenge(self, partitions: Sequence[str], *, settled: bool) -> Asked:
        """The parent's challenges; one of the relay's own for a partition that is new to the parent."""
        unknown = super().challenge(partitions, settled=True).challenges
        return Asked({name: self._passed.get(name, unknown[name]) for name in partitions})


def whole_answer(shown: Shown) -> bytes:
    """The answers to all challenges of a partition, as they are sent."""
    return b"".join([*shown.answers.values(), shown.own[1]])


class NoKeyExchange(KeyExchange):
    """Refuses to let workers agree on a key: those of another site would have another one."""

    async def agree(self, connection: Connection, request: KeyRequest, limit: tuple[float, str]) -> None:
        """Raise UsageError."""
        rule = (
            "is for workers that are connected to the server; behind a relay give --group-secret-file alone"
        )
        raise UsageError("--group-agree or --group-ca", rule, request.offer.name)


class Gathering:
    """Waits for the nodes behind a relay, and lets them join for one connection to the parent.

    Parameters
    ----------
    options : RelayOptions
    welcome : Welcome
        The parent's welcome, which says which run this is.
    settings : Settings
    ledger : Ledger
        Counts the bytes between the relay and its nodes.
    security : ServerSecurity
    emit : callable

    Attributes
    ----------
    membership : Membership
        The nodes that have joined.
    settings : Settings
    strategy : str
        The server's strategy; "auto" if it is not chosen yet.
    blind : bool
        Whether the server and the relay must learn nothing of the data.
    multicast : MulticastServer or None
        The multicast group of the site.
    """

    def __init__(
        self,
        options: RelayOptions,
        welcome: Welcome,
        settings: Settings,
        ledger: Ledger,
        security: ServerSecurity,
        emit: OnEvent,
    ) -> None:
        self.membership = Membership()
        self.membership.keys = NoKeyExchange(self.membership.change, lambda: False)
        self._options = options
        self.settings, self.blind = settings, welcome.blind
        # A parent whose run ends waits as long for workers whose relay was lost as for silent ones.
        self._patience = min(options.rejoin_timeout, welcome.silence / 2)
        self._log = MemberLog(welcome.run, emit)
        self.strategy = welcome.strategy
        downward = self._downward(options.workers, options.join_timeout)
        group, seconds = options.multicast, downward.round_timeout / 2
        self.multicast = None if group is None else MulticastServer(group, ledger, seconds)
        self._admission = Admission(
            welcome.run, downward, self.membership, ledger, security, self._log, Downlinks(self.multicast)
        )

    def accept(self) -> Connection:
        """Make the protocol object of a new connection, whose node is refused after `close`."""
        return self._admission.accept()

    async def complete(self, before: int = 0) -> None:
        """Wait for the nodes.

        Parameters
        ----------
        before : int
            The number of workers that were here in the last connection to the parent; 0 if this is the first
            one. Else, or if a worker comes that has made rounds, the relay goes on after a while without
            those that are missing.

        Raises
        ------
        WaitError
            They did not come in time.
        """
        options = self._options
        if not before and not await self._begins(options):
            return
        try:
            expected = max(options.workers, before)
            await self._start(expected, self._patience).wait_for_workers()
        except WaitError:
            if not self.workers:
                await self._start(1, options.join_timeout).wait_for_workers()
            # Those that are here are compared as well.
            await self._start(max(1, self.workers), options.join_timeout).wait_for_workers()

    async def _begins(self, options: RelayOptions) -> bool:
        """Wait for all workers; return whether one of them shows that the run has begun long since."""
        started = self._start(options.workers, options.join_timeout)
        waiting = asyncio.create_task(started.wait_for_workers())
        waiting.add_done_callback(lambda _: self.membership.note_change())
        try:
            while not waiting.done():
                if any(member.round for member in self.membership.members.values()):
                    return True
                await self.membership.change(None)
            waiting.result()
            return False
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    @property
    def workers(self) -> int:
        """The number of workers that are here, those behind other relays included."""
        return sum(member.workers for member in self.membership.members.values() if not member.gone)

    async def prepared(
        self,
        encoding: Encoding,
        challenges: Mapping[str, bytes],
        workers: int,
        surveys: Mapping[str, bytes] | None = None,
    ) -> tuple[bytes, ...]:
        """Let all nodes encode their rows and answer the parent's challenges; return the answers in order.

        The encoding of a blind run is empty: the nodes make it from the sealed surveys of all partitions.

        Raises
        ------
        SiteChangedError
            A node cannot, or most other holders of a partition have other rows.
        DataError
            As many holders of a partition have some rows as others.
        """
        membership = self.membership
        membership.possession, membership.surveys = PassedChallenges(challenges), surveys
        membership.encoding.set_result(encoding)
        while not all(member.ready or member.gone for member in membership.members.values()):
            await membership.change(None)
        members = membership.present(held=True)
        if len(members) < workers:
            raise SiteChangedError
        answers = {m.name: {p: whole_answer(shown) for p, shown in m.shown.items()} for m in members}
        odd = dissenters(answers)
        for member in members:
            if (dissent := odd.get(member.name)) is not None:
                error = no_proof(member.name, dissent.partition, dissent.believed)
                if dissent.tied:
                    raise error
                await membership.lose(member, error, back=False, excluded=True)
        if odd:
            raise SiteChangedError
        merged = {name: answer for own in answers.values() for name, answer in own.items()}
        return tuple(merged[name] for name in challenges)

    async def close(self, *, back: bool = True) -> None:
        """Admit no more nodes, and end all connections to them; with `back` they may come back."""
        self._admission.resumable = back
        await self._admission.close()
        await self.membership.close()
        if self.multicast is not None:
            await self.multicast.close()

    def _start(self, workers: int, join_timeout: float) -> RunStart:
        options = self._downward(workers, join_timeout)
        return RunStart(options, self.membership, self._admission, self._log)

    def _downward(self, workers: int, join_timeout: float) -> RunOptions:
        return self._options.downward(self.settings, self.strategy, workers, join_timeout, blind=self.blind)
