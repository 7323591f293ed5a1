"""The admission of workers to a run, or their refusal: greeting, checks, encoding, group probe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from asyncdmtl.blinding.sealed import check_sealed, sealed_surveys
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import (
    AsyncDMTLError,
    IntegrityError,
    PeerError,
    PlacementError,
    RemoteProtocolError,
    UsageError,
)
from asyncdmtl.learning.tasks import SEALED, Declaration
from asyncdmtl.net.authentication import Authenticator, ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.failed_proofs import FailedProofs
from asyncdmtl.net.open_files import limit_reached
from asyncdmtl.net.strangers import MadeRoomError, Strangers
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import MAX_PARTITIONS
from asyncdmtl.protocol.messages.joining import SUBMITS
from asyncdmtl.protocol.messages.pieces import MAX_PIECES
from asyncdmtl.protocol.messages.registry import Declare, Hello, Prepare, Ready, Welcome
from asyncdmtl.server.agreement import check_machine, check_surveys, first_other
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.declaration_turns import DeclarationTurns
from asyncdmtl.server.member import Member, check_prepared, is_final, other_data
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import MAX_MEMBERS, Membership
from asyncdmtl.server.multicast_server import MulticastServer
from asyncdmtl.server.peer_rows import PeerRowsServer
from asyncdmtl.server.records import PeersRecord, RunOptions
from asyncdmtl.server.wants import check_relay, check_wants

log = logging.getLogger(__name__)

# The name under which the ledger counts the bytes of connections that were refused.
REFUSED = "(refused)"


class NoSubmissionsError(UsageError):
    """A program has jobs for a server that makes one run."""


# Refusals that are not logged where they are made.
QUIET = (MadeRoomError, NoSubmissionsError)


class Downlinks(NamedTuple):
    """The ways by which rows come to workers other than over their connections to the server.

    Attributes
    ----------
    multicast : MulticastServer or None
        Probes whether workers receive the group.
    peers : PeerRowsServer or None
        Asks workers where others may take rows from them.
    """

    multicast: MulticastServer | None = None
    peers: PeerRowsServer | None = None

    def peers_record(self, assignment: Assignment) -> PeersRecord | None:
        """The record of the rows between workers, with an assignment as the last one; None without peers."""
        if self.peers is None:
            return None
        return self.peers.record(assignment.exchanging, carried=assignment.carried)

    def note_lost(self, name: str, member: Member | None) -> None:
        """Note that the connection of a worker, which may be a member, has ended."""
        if self.multicast is None:
            return
        self.multicast.drop(name)
        failure = None if member is None or not member.hears else member.connection.failure
        if isinstance(failure, PeerError) and failure.exit_code == IntegrityError.exit_code:
            self.multicast.note_misled(name)


SERVER_ONLY = Downlinks()


class Admission:
    """Admits workers to a run. Admissions are concurrent, so that a slow worker delays no other.

    Parameters
    ----------
    run : str
        The run's name.
    options : RunOptions
    membership : Membership
        The members of the run, to which admitted workers are added.
    ledger : Ledger
        Counts the bytes of members.
    security : ServerSecurity
        The proofs that workers must give.
    member_log : MemberLog
    downlinks : Downlinks, optional

    Attributes
    ----------
    resumable : bool
        Whether workers whose admission is interrupted by the server's end are told that they may come back.
    """

    def __init__(
        self,
        run: str,
        options: RunOptions,
        membership: Membership,
        ledger: Ledger,
        security: ServerSecurity,
        member_log: MemberLog,
        downlinks: Downlinks = SERVER_ONLY,
    ) -> None:
        self.resumable = self._closed = False
        self._options = options
        self._membership = membership
        self._ledger = ledger
        self._security = security
        self._log = member_log
        self._downlinks = downlinks
        clock = asyncio.get_running_loop().time
        failed = FailedProofs(clock)
        failed.on_delay = member_log.delayed
        self._strangers = Strangers[Connection](make_room, clock)
        self._authenticator = Authenticator(run, security, failed, self._strangers, options.silence_timeout)
        self._turns = DeclarationTurns(options.silence_timeout)
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self) -> Connection:
        """Make the protocol object of a new connection, whose worker is then admitted or refused."""
        silence = self._options.silence_timeout
        return Connection("server", Ledger(), silence, on_open=self._opened, tls=self._security.channels)

    def admit(self, connection: Connection, hello: Hello) -> None:
        """Admit or refuse a worker whose connection and greeting another listener has accepted."""
        self._strangers.enter(connection, connection.link.host)
        self._run_task(asyncio.create_task(self._admit(connection, hello)))

    def refuse(self, member: Member, error: AsyncDMTLError) -> None:
        """Refuse a worker that has joined already; it may be started again with other data."""
        self._log.refused(member.connection, error)
        member.connection.worker_may_return = False
        self._run_task(asyncio.create_task(member.connection.fail(error)))

    async def close(self) -> None:
        """End all admissions; workers that connect from now on are refused at once."""
        self._closed = True
        await asyncio.sleep(0)  # a task that is cancelled before it has begun would tell its worker nothing
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _opened(self, connection: Connection) -> None:
        if self._closed:
            turn_away(connection, back=self.resumable)
            return
        self._strangers.enter(connection, connection.link.host)
        self._run_task(asyncio.create_task(self._admit(connection)))

    def _run_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, connection: Connection, hello: Hello | None = None) -> None:
        """Admit a worker, or tell it why not. Neither affects other workers."""
        try:
            with self._turns.turn(connection):
                member = await self._greet(connection, hello)
            self._strangers.leave(connection, joined=True)
        except AsyncDMTLError as error:
            # Not logged: monitors, which send nothing; closings that made room, reported together; programs.
            if not (connection.link.nothing_received or isinstance(error, QUIET)):
                self._log.refused(connection, error)
            # The connection keeps the error, whose traceback would keep the declaration.
            await connection.fail(error.with_traceback(None))
            self._ledger.merge(connection.session.ledger, worker=REFUSED)
            return
        except asyncio.CancelledError:
            connection.worker_may_return = self.resumable
            await connection.fail(AsyncDMTLError("the server ended"))
            raise
        except Exception as error:
            if reason := limit_reached(error):
                lost = AsyncDMTLError(f"the server has {reason}")
                self._log.refused(connection, lost)
            else:
                lost = AsyncDMTLError(f"internal error: {error!r}")
                self._log.broken(connection)
            await connection.fail(lost)
            return
        finally:
            self._strangers.leave(connection)
        await self._prepare(member)

    async def _greet(self, connection: Connection, hello: Hello | None) -> Member:
        """Receive a worker's name and its partitions, check both, and make it a member."""
        options, settings = self._options, self._options.settings
        hello, proof = await self._authenticator.identify(connection, hello)
        _check_no_program(hello)
        self._check_name(connection, hello.name)
        facts = settings.as_dict(), options.silence_timeout, proof, options.blind, options.strategy
        welcome = Welcome(self._authenticator.run, *facts)
        await connection.send(welcome, options.silence_timeout, "--silence-timeout")
        declare, declared = await self._declaration(connection, hello.name)
        await asyncio.to_thread(check_machine, hello.name, declare.machine, settings.arithmetic)
        await self._check_declared(connection, hello.name, declared)
        # Another worker may have joined under this name meanwhile.
        self._check_name(connection, hello.name)
        known = self._membership.known
        # Surveys may be large: all holders of a partition share one declaration.
        declared = tuple(part if known is None else known[part.id] for part in declared)
        check_wants(hello.name, declare.wants, options.strategy, settings.update)
        check_relay(hello.name, declare.behind, options.strategy, options.silent)
        state = declare.round, declare.over, declare.state
        member = Member(hello.name, connection, declared, *state, declare.wants, declare.behind)
        again = self._membership.add(member)
        self._ledger.merge(connection.session.ledger, worker=member.name)
        connection.session.ledger = self._ledger
        connection.on_lost = partial(self._on_lost, member.name)
        connection.worker_may_return = True
        self._log.joined(connection, len(member.declared), again=again)
        return member

    async def _declaration(
        self, connection: Connection, name: str
    ) -> tuple[Declare, tuple[Declaration, ...]]:
        """The last piece of a declaration, and the partitions of all pieces, with checked surveys."""
        limit = self._options.join_timeout, "--join-timeout"
        declared: dict[str, Declaration] = {}
        for _ in range(MAX_PIECES):
            message = await self._membership.keys.next_piece(connection, limit, blind=self._options.blind)
            if declared.keys() & {part.id for part in message.partitions}:
                raise RemoteProtocolError("a partition is declared twice")
            declared |= {part.id: part for part in message.partitions}
            if len(declared) > MAX_PARTITIONS:
                raise RemoteProtocolError(f"partitions must be at most {MAX_PARTITIONS}, not {len(declared)}")
            # Partitions that are known have surveys that were checked.
            if await self._check_declared(connection, name, message.partitions) is None:
                async with self._turns.checking(connection):
                    await asyncio.to_thread(_check_surveys, message.partitions, self._options)
            if isinstance(message, Declare):
                return message, tuple(declared.values())
        raise RemoteProtocolError(f"a declaration must have at most {MAX_PIECES} pieces")

    async def _prepare(self, member: Member) -> None:
        """Let a worker encode its rows, once the encoding is known. A worker that cannot is lost."""
        membership = self._membership
        encoding = await asyncio.shield(membership.encoding)
        if membership.members.get(member.name) is not member:
            return
        limit = self._options.join_timeout, "--join-timeout"
        try:
            settled = membership.infos_settled
            asked = membership.possession.challenge(member.partitions, settled=settled)
            await member.connection.send(_prepare(encoding, membership, self._options, asked.packed), *limit)
            ready = await member.connection.receive((Ready,), *limit)
            known = membership.infos if settled else {}
            check_prepared(member.name, member.declared, ready.partitions, encoding, known)
            member.shown = membership.possession.checked(member.name, asked, ready.answers)
            if self._downlinks.peers is not None and not member.behind:
                await self._downlinks.peers.ask(member)
            if self._downlinks.multicast is not None:
                await self._downlinks.multicast.probe(member)
        except AsyncDMTLError as error:
            self._log.left(member.connection, "cannot take part:", error)
            # Unless the connection failed, this worker can never provide the rows that it declared.
            await membership.lose(member, error, back=not (isinstance(error, UsageError) or is_final(error)))
            return
        member.infos, member.ready = ready.partitions, True
        if settled:
            membership.possession.keep(member.name, member.shown)
            membership.infos.update({info.id: info for info in ready.partitions})
        membership.note_change()

    def _check_name(self, connection: Connection, name: str) -> None:
        """Raise UsageError unless a worker may join under this name."""
        membership = self._membership
        if name in membership.excluded:
            raise UsageError("worker", f"may not come back ({membership.excluded[name]})", name)
        if name in membership.members and not membership.members[name].gone:
            # The member's connection may be broken although the server has not noticed it yet.
            connection.worker_may_return = True
            raise UsageError("--name", "must be unique; already joined", name)
        if membership.full:
            connection.worker_may_return = True
            raise UsageError(
                "workers", f"must be at most {MAX_MEMBERS} at one time; all places are taken", name
            )

    async def _check_declared(
        self, connection: Connection, name: str, declared: Sequence[Declaration]
    ) -> Mapping[str, Declaration] | None:
        """Check declared partitions against the known partitions of the run, which are returned.

        Raises
        ------
        PlacementError
            A partition is not among them, or the placement of --cover does not permit it to this worker.
        DataError
            A partition differs from an earlier declaration of the same name.
        """
        membership, listed = self._membership, self._options.permitted
        while True:
            known = membership.known
            # Until all rows are encoded, partitions may be forgotten again; then this worker's are as welcome
            # as others.
            connection.worker_may_return = known is not None and not membership.infos_settled
            permitted = self._options.cover if known is None else known
            for part in declared:
                if listed is not None and part.id not in listed.get(name, ()):
                    rule = "may store what --cover says only; not listed"
                    raise PlacementError(f"worker {name!r}", rule, part.id)
                if permitted is not None and part.id not in permitted:
                    rule = "may store known partitions only; unknown"
                    raise PlacementError(f"worker {name!r}", rule, part.id)
            async with self._turns.checking(connection):
                other = await asyncio.to_thread(first_other, declared, known or {})
                if other is not None and known is not None:
                    holders = membership.holders(other.id)
                    raise await asyncio.to_thread(other_data, name, other, holders, known[other.id])
            if known is membership.known:
                connection.worker_may_return = False
                return known

    def _on_lost(self, name: str) -> None:
        """Called when the connection of a member has ended."""
        self._membership.note_change()
        # A worker that was refused before the start is no member any more.
        self._downlinks.note_lost(name, self._membership.members.get(name))


def _check_no_program(hello: Hello) -> None:
    """Raise NoSubmissionsError if not a worker comes, but a program that submits jobs."""
    if hello.run == SUBMITS:
        log.info("%r asks whether jobs are taken; this is one run", hello.name)
        raise NoSubmissionsError("--submissions", "must be given to the server, which takes no jobs", None)


def make_room(connection: Connection) -> None:
    """Close a connection that has not joined; its worker may connect again."""
    connection.worker_may_return = True
    told = f"{connection.peer} had not joined and made room for a new connection: there are too many"
    # If the peer has sent nothing, the server does not wait until it has read the reason.
    heard = not connection.link.nothing_received
    connection.link_failed(MadeRoomError(told, peer=connection.session.worker), tell=heard)


def turn_away(connection: Connection, *, back: bool) -> None:
    """Close a connection that was opened after the end, and say whether the worker may connect again.

    It was accepted before the end, or the listener stays open for the admission after this one.
    """
    connection.worker_may_return = back
    connection.link_failed(AsyncDMTLError("the server takes no workers now"), tell=True)


def _check_surveys(declared: Sequence[Declaration], options: RunOptions) -> None:
    """Raise UsageError if a survey is malformed, or in a blind run not sealed."""
    (check_sealed if options.blind else check_surveys)(declared)


def _prepare(
    encoding: Encoding, membership: Membership, options: RunOptions, challenges: tuple[bytes, ...]
) -> Prepare:
    """The message with the encoding; in a blind run, with the sealed surveys from which workers make it."""
    if not options.blind:
        return Prepare(encoding.as_dict(), challenges)
    surveys = membership.surveys
    told = sealed_surveys(membership.known or {}) if surveys is None else surveys
    return Prepare({SEALED: dict(told)}, challenges)
