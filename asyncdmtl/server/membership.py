"""Who takes part: workers are greeted, checked, told how to encode their rows, and taken in or refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from functools import partial

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import (
    AsyncDMTLError,
    IntegrityError,
    LinkError,
    PeerError,
    PlacementError,
    UsageError,
    WaitError,
)
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.net.authentication import Authenticator, ServerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.kernel import KernelCount
from asyncdmtl.net.lockout import Lockout
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Declare, Prepare, Ready, Welcome
from asyncdmtl.server.agreement import check_machine, check_surveys, dissenters, pooled
from asyncdmtl.server.events import Joined, Left, LockedOut, OnEvent, Refused
from asyncdmtl.server.member import Member, check_prepared, is_final, other_data, other_encoding
from asyncdmtl.server.multicast import MulticastServer

log = logging.getLogger(__name__)


class Membership:
    """The workers of one run.

    Parameters
    ----------
    run : str
        The run's name, sent with the greeting.
    settings : Settings
        Those of the training, sent with the greeting.
    workers : int or None
        How many the run waits for.
    cover : tuple of str or None
        The partitions that exist: the run waits for a holder of each, and nobody may declare others.
    join_timeout, silence_timeout : float
        Seconds: for all to join, and for a sign of life.
    ledger : Ledger
    emit : callable
        Called with events.
    security : ServerSecurity
        What workers must prove.
    multicast : MulticastServer, optional
        The group that workers are to listen to.

    Attributes
    ----------
    members : dict of name to Member
        Those who were lost since the start included.
    infos : dict of partition to PartitionInfo
        What those who are ready made of their partitions.
    """

    def __init__(
        self,
        run: str,
        settings: Settings,
        *,
        workers: int | None,
        cover: tuple[str, ...] | None,
        join_timeout: float,
        silence_timeout: float,
        ledger: Ledger,
        emit: OnEvent,
        security: ServerSecurity,
        multicast: MulticastServer | None = None,
    ) -> None:
        self.members: dict[str, Member] = {}
        self.infos: dict[str, PartitionInfo] = {}
        self._known: dict[str, Declaration] | None = None
        self._settled = False
        self._excluded: dict[str, str] = {}
        self._past: dict[str, KernelCount] = {}
        self._resumable = False
        self._run = run
        self._settings = settings
        self._workers = workers
        self._cover = cover
        self._join_timeout = join_timeout
        self._silence_timeout = silence_timeout
        self._ledger = ledger
        self._emit = emit
        self._security = security
        self._multicast = multicast
        self._gate = Lockout(asyncio.get_running_loop().time)
        self._gate.on_lockout = self._on_lockout
        self._doorman = Authenticator(run, security, self._gate, silence_timeout)
        self._changed = asyncio.Event()
        self._encoding: asyncio.Future[Encoding] = asyncio.get_running_loop().create_future()
        self._admissions: set[asyncio.Task[None]] = set()

    def accept(self) -> Connection:
        """The protocol of a new connection; its worker is admitted, or not, as it speaks."""
        return Connection(
            "server", Ledger(), self._silence_timeout, on_open=self._opened, tls=self._security.channels
        )

    async def complete(self) -> tuple[Encoding, tuple[Declaration, ...]]:
        """Wait for the workers that the run needs, and for their rows to be prepared.

        Whoever comes later may store only what is declared by then. Where holders of a partition tell
        different things of it, most of them are believed (`dissenters`), and the others refused.

        Returns
        -------
        encoding : Encoding
            What the rows of all partitions are prepared with.
        declared : tuple of Declaration
            All partitions, in natural order. `infos` lacks those whose holders could not prepare them.

        Raises
        ------
        WaitError
            They did not join in time.
        PlacementError
            Those that joined lack a partition that must be covered.
        DataError
            What they declared does not fit together. No partition is left out for that, so this names those
            that differ, and who holds them.
        """
        try:
            async with asyncio.timeout(self._join_timeout):
                while not (self._enough() and self._agreed()):
                    self._changed.clear()
                    await self._changed.wait()
                    self._drop_lost()
        except TimeoutError:
            raise WaitError(
                f"not all workers joined: {self._lacking()}",
                seconds=self._join_timeout,
                option="--join-timeout",
            ) from None
        known = self._declared()
        if uncovered := self._uncovered():
            raise PlacementError(
                "placement", "must store every partition at some worker; without holder", uncovered
            )
        if not known:
            raise PlacementError("placement", "must have at least one partition; joined", list(self.members))
        # Who joins meanwhile may store no more than that.
        self._known = known
        self._known = known
        for member in self.members.values():
            # Kept once, whoever holds them: surveys may be large.
            member.declared = tuple(known[part.id] for part in member.declared)
        encoding = await asyncio.to_thread(pooled, known, self._settings, self._holders)
        declared = tuple(known[name] for name in sorted(known, key=natural_key))
        self._encoding.set_result(encoding)
        while not all(member.ready or member.lost for member in self.members.values()):
            self._changed.clear()
            await self._changed.wait()
        await self._settle()
        return encoding, declared

    def resume(
        self, encoding: Encoding, declared: Sequence[Declaration], infos: Sequence[PartitionInfo]
    ) -> None:
        """Take in all who store what is known already, instead of `complete`."""
        self._known = {part.id: part for part in declared}
        self.infos.update({info.id: info for info in infos})
        self._settled = True
        self._encoding.set_result(encoding)

    def present(self) -> list[Member]:
        """All who are ready and not gone, in the natural order of their names."""
        here = [member for member in self.members.values() if member.ready and not member.gone]
        return sorted(here, key=lambda member: natural_key(member.name))

    def newcomers(self) -> bool:
        """Whether somebody is ready who does not take part yet."""
        return any(not member.current for member in self.present())

    async def change(self, seconds: float) -> None:
        """Wait until somebody joins, becomes ready or leaves, but no longer than so many seconds."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def hopeless(self, partitions: Iterable[str]) -> bool:
        """Whether all who held one of these ended because of their own data or options: so would others."""
        for name in partitions:
            holders = [member for member in self.members.values() if name in member.partitions]
            if holders and all(member.ended for member in holders):
                return True
        return False

    def nobody_holds(self, partitions: Sequence[str]) -> LinkError:
        """What to say when nobody is left who holds these: who held them, and why they do not any more."""
        told, were, missing = [], [], set(partitions)
        for member in self.members.values():
            if held := [name for name in member.partitions if name in missing]:
                told.append(f"worker {member.name!r} held {_listed(held)} ({_why(member)})")
                were.append(member.name)
        return LinkError(
            f"nobody is left who holds the partitions {_listed(partitions)}: {'; '.join(told)}",
            peer=", ".join(were),
        )

    async def lose(
        self, member: Member, error: AsyncDMTLError, *, back: bool, excluded: bool = False
    ) -> None:
        """Do without a worker, and tell it so and whether it may come `back`.

        Nobody else may come under the name of a worker that is `excluded`.
        """
        member.lost = error
        if excluded:
            self._excluded[member.name] = str(error)
        member.connection.worker_may_return = back
        self._changed.set()
        await member.connection.fail(error)

    async def tell_all(self, error: AsyncDMTLError, *, back: bool = False) -> None:
        """Let every member know that the run failed; or, if they may come `back`, that it will be resumed."""
        self._resumable = back
        for member in self.members.values():
            member.connection.worker_may_return = back
        await asyncio.gather(*(member.connection.fail(error) for member in self.members.values()))

    def kernel_counts(self) -> dict[str, KernelCount]:
        """What the kernel counted on all connections of each worker."""
        counts = dict(self._past)
        for member in self.members.values():
            _add(counts, member)
        return counts

    async def close(self) -> None:
        """End admissions and connections."""
        for task in self._admissions:
            task.cancel()
        await asyncio.gather(*self._admissions, return_exceptions=True)
        self._encoding.cancel()
        await asyncio.gather(*(member.connection.close() for member in self.members.values()))

    def _opened(self, connection: Connection) -> None:
        if not self._gate.enter(connection.link.host):
            connection.abort()
            return
        self._keep(asyncio.create_task(self._admit(connection)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._admissions.add(task)
        task.add_done_callback(self._admissions.discard)

    async def _admit(self, connection: Connection) -> None:
        """Take a worker in, or tell it why not; nobody else notices either way."""
        try:
            member = await self._greet(connection)
        except AsyncDMTLError as error:
            self._report(Refused, connection, "is refused:", error)
            await connection.fail(error)
            self._ledger.merge(connection.session.ledger, worker="(refused)")
            return
        except asyncio.CancelledError:
            connection.worker_may_return = self._resumable
            await connection.fail(AsyncDMTLError("the server ended"))
            raise
        except Exception as error:
            log.exception("admission of %s failed", connection.peer, extra=self._about(connection))
            await connection.fail(AsyncDMTLError(f"internal error: {error!r}"))
            return
        finally:
            self._gate.leave(connection.link.host)
        await self._prepare(member)

    async def _greet(self, connection: Connection) -> Member:
        hello, proof = await self._doorman.identify(connection)
        self._check_name(connection, hello.name)
        welcome = Welcome(self._run, self._settings.as_dict(), self._silence_timeout, proof)
        await connection.send(welcome, self._silence_timeout, "--silence-timeout")
        declare = await connection.receive((Declare,), self._join_timeout, "--join-timeout")
        await asyncio.to_thread(check_machine, hello.name, declare.machine, self._settings.arithmetic)
        await asyncio.to_thread(check_surveys, declare.partitions)
        self._check_name(connection, hello.name)
        self._check_declared(hello.name, declare.partitions)
        standing = (declare.round, declare.over, declare.state)
        member = Member(hello.name, connection, declare.partitions, *standing)
        before = self.members.get(member.name)
        if before is not None:
            _add(self._past, before)
            member.missed_since = before.missed_since
        self.members[member.name] = member
        self._ledger.merge(connection.session.ledger, worker=member.name)
        connection.session.ledger = self._ledger
        connection.on_lost = partial(self._on_lost, member.name)
        connection.worker_may_return = True
        self._emit(Joined(member.name, len(member.declared), before is not None))
        log.info(
            "run %s: %s joined with %d partitions", self._run, connection.peer, len(member.declared),
            extra=self._about(connection),
        )  # fmt: skip
        self._changed.set()
        return member

    async def _prepare(self, member: Member) -> None:
        """Let a worker encode its rows, once it is known how; one that cannot is lost."""
        encoding = await asyncio.shield(self._encoding)
        if self.members.get(member.name) is not member:
            return
        limit, option = self._join_timeout, "--join-timeout"
        try:
            await member.connection.send(Prepare(encoding.as_dict()), limit, option)
            ready = await member.connection.receive((Ready,), limit, option)
            known = self.infos if self._settled else {}
            check_prepared(member.name, member.declared, ready.partitions, encoding, known)
            if self._multicast is not None:
                await self._multicast.probe(member)
        except AsyncDMTLError as error:
            self._report(Left, member.connection, "cannot take part:", error)
            # Unless only the connection failed, what it declared cannot be had from it.
            await self.lose(member, error, back=not (isinstance(error, UsageError) or is_final(error)))
            return
        member.infos, member.ready = ready.partitions, True
        if self._settled:
            self.infos.update({info.id: info for info in ready.partitions})
        self._changed.set()

    def _check_name(self, connection: Connection, name: str) -> None:
        if name in self._excluded:
            raise UsageError("worker", f"may not come back ({self._excluded[name]})", name)
        if name in self.members and not self.members[name].gone:
            # The connection there may have broken unnoticed: then it will be gone soon.
            connection.worker_may_return = True
            raise UsageError("--name", "must be unique; already joined", name)

    def _check_declared(self, name: str, declared: Sequence[Declaration]) -> None:
        known = self._known or {}
        permitted = self._cover if self._known is None else self._known
        for part in declared:
            if permitted is not None and part.id not in permitted:
                raise PlacementError(f"worker {name!r}", "may store known partitions only; unknown", part.id)
            if known.get(part.id, part) != part:
                raise other_data(name, part, self._holders(part.id), known[part.id])

    def _agreed(self) -> bool:
        """Refuse who declared something else than most holders; whether the others hold all there is."""
        everything = self._cover or tuple(self._declared())
        odd = dissenters({m.name: {part.id: part for part in m.declared} for m in self.members.values()})
        for name, dissent in odd.items():
            own, other = (
                self.members[who].declaration(dissent.partition) for who in (name, dissent.believed[0])
            )
            self._refuse(self.members[name], other_data(name, own, ", ".join(dissent.believed), other))
        for name in odd:
            _add(self._past, self.members.pop(name))
        return not odd or set(everything) <= set(self._declared())

    def _refuse(self, member: Member, error: AsyncDMTLError) -> None:
        """Send a member away before the start; it may be started again with what it should have."""
        self._report(Refused, member.connection, "is refused:", error)
        member.connection.worker_may_return = False
        self._keep(asyncio.create_task(member.connection.fail(error)))

    async def _settle(self) -> None:
        """Believe what most holders of each partition made of it, and do without the others."""
        here = {member.name: member for member in self.members.values() if member.ready and not member.gone}
        made = {name: {info.id: info for info in member.infos} for name, member in here.items()}
        odd = dissenters(made)
        for name in made.keys() - odd.keys():
            self.infos.update(made[name])
        self._settled = True
        for name, dissent in odd.items():
            error = other_encoding(name, made[name][dissent.partition], self.infos[dissent.partition])
            self._report(Left, here[name].connection, "cannot take part:", error)
            await self.lose(here[name], error, back=False)

    def _declared(self) -> dict[str, Declaration]:
        return {part.id: part for member in self.members.values() for part in member.declared}

    def _holders(self, partition: str) -> str:
        holders = [member.name for member in self.members.values() if partition in member.partitions]
        return ", ".join(sorted(holders, key=natural_key)) or "the start of the run"

    def _enough(self) -> bool:
        if self._workers is not None:
            return len(self.members) >= self._workers
        return not self._uncovered()

    def _uncovered(self) -> list[str]:
        known = self._declared()
        return [name for name in self._cover or () if name not in known]

    def _lacking(self) -> str:
        joined = ", ".join(sorted(self.members, key=natural_key)) or "none"
        if self._workers is not None:
            return f"{len(self.members)} of {self._workers} are here ({joined})"
        return f"no holder of {self._uncovered()} is here (joined: {joined})"

    def _drop_lost(self) -> None:
        """Forget workers that left before the start; they may come again."""
        for member in [member for member in self.members.values() if member.connection.lost]:
            self._report(Left, member.connection, "left", "before the start")
            _add(self._past, member)
            del self.members[member.name]

    def _on_lost(self, name: str) -> None:
        self._changed.set()
        if self._multicast is None:
            return
        self._multicast.drop(name)
        # Who is refused before the start is no member any more.
        member = self.members.get(name)
        failure = None if member is None or not member.hears else member.connection.failure
        if isinstance(failure, PeerError) and failure.exit_code == IntegrityError.exit_code:
            self._multicast.mislead(name)

    def _on_lockout(self, kind: str, value: str, seconds: float) -> None:
        self._emit(LockedOut(kind, value, seconds))

    def _report(self, event: type[Left | Refused], connection: Connection, what: str, reason: object) -> None:
        """One line, and one event, on somebody who does not take part."""
        log.warning(
            "run %s: %s %s %s", self._run, connection.peer, what, reason, extra=self._about(connection)
        )
        self._emit(event(connection.session.worker, str(reason)))

    def _about(self, connection: Connection) -> dict[str, str]:
        """What a log line on a worker carries as fields."""
        return {"run": self._run, "worker": connection.session.worker}


def _add(counts: dict[str, KernelCount], member: Member) -> None:
    """Add what the kernel counted on the connection of `member`, if it did."""
    found, before = member.connection.link.kernel_count(), counts.get(member.name)
    if found is not None:
        counts[member.name] = found if before is None else before + found


def _why(member: Member) -> object:
    """Why a worker does not hold what it declared."""
    if (reason := member.lost or member.connection.failure) is not None:
        return reason
    if not member.ready:
        return "its rows are not prepared yet"
    return "its updates of them differ from those of other holders"


def _listed(names: Sequence[str], most: int = 20) -> str:
    """Names in a message that is to be read."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{list(names[:most])}{more}"
