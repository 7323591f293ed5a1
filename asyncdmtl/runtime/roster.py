"""Who takes part: workers are greeted, checked and taken in, or told why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.errors import AsyncDMTLError, DataError, PlacementError, UsageError, WaitError
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import Declare, Hello, Welcome
from asyncdmtl.runtime.transport import Connection

log = logging.getLogger(__name__)

Event = dict[str, Any]

# Connections that have not joined yet; more are cut off at once.
MOST_STRANGERS = 1024


@dataclass(eq=False)
class Member:
    """A worker that has joined."""

    name: str
    connection: Connection
    partitions: tuple[PartitionInfo, ...]


class Roster:
    """The workers of one run.

    Parameters
    ----------
    run : str
        The run's name, sent with the greeting.
    settings : dict
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
    """

    def __init__(
        self,
        run: str,
        settings: dict[str, Any],
        *,
        workers: int | None,
        cover: tuple[str, ...] | None,
        join_timeout: float,
        silence_timeout: float,
        ledger: Ledger,
        emit: Callable[[Event], None],
    ) -> None:
        self.members: dict[str, Member] = {}
        self._run = run
        self._settings = settings
        self._workers = workers
        self._cover = cover
        self._join_timeout = join_timeout
        self._silence_timeout = silence_timeout
        self._ledger = ledger
        self._emit = emit
        self._changed = asyncio.Event()
        self._open = True
        self._admissions: set[asyncio.Task[None]] = set()

    def accept(self) -> Connection:
        """The protocol of a new connection; its worker is admitted, or not, as it speaks."""
        return Connection("server", Ledger(), self._silence_timeout, on_open=self._opened)

    async def complete(self) -> tuple[PartitionInfo, ...]:
        """Wait for the workers that the run needs, then admit no more; all partitions, in natural order.

        Raises
        ------
        WaitError
            They did not join in time.
        PlacementError
            Those that joined lack a partition that must be covered.
        """
        try:
            async with asyncio.timeout(self._join_timeout):
                while not self._ready():
                    self._changed.clear()
                    await self._changed.wait()
                    self._drop_lost()
        except TimeoutError:
            raise WaitError(
                f"not all workers joined: {self._lacking()}",
                seconds=self._join_timeout,
                option="--join-timeout",
            ) from None
        self._open = False
        if uncovered := self._uncovered():
            raise PlacementError(
                "placement", "must store every partition at some worker; without holder", uncovered
            )
        known = self._known()
        if not known:
            raise PlacementError("placement", "must have at least one partition; joined", list(self.members))
        return tuple(known[name] for name in sorted(known, key=natural_key))

    async def tell_all(self, error: AsyncDMTLError) -> None:
        """Let every member know that the run failed."""
        await asyncio.gather(*(member.connection.fail(error) for member in self.members.values()))

    async def close(self) -> None:
        """End admissions and connections."""
        for task in self._admissions:
            task.cancel()
        await asyncio.gather(*self._admissions, return_exceptions=True)
        await asyncio.gather(*(member.connection.close() for member in self.members.values()))

    def _opened(self, connection: Connection) -> None:
        if len(self._admissions) >= MOST_STRANGERS:
            connection.abort()
            return
        task = asyncio.create_task(self._admit(connection))
        self._admissions.add(task)
        task.add_done_callback(self._admissions.discard)

    async def _admit(self, connection: Connection) -> None:
        """Greet a worker and take it in, or tell it why not; nobody else notices either way."""
        try:
            hello = await connection.receive((Hello,), self._silence_timeout, "--silence-timeout")
            self._check_name(hello.name)
            await connection.send(
                Welcome(self._run, self._settings, self._silence_timeout),
                self._silence_timeout,
                "--silence-timeout",
            )
            declare = await connection.receive((Declare,), self._join_timeout, "--join-timeout")
            self._check_name(hello.name)
            self._check_partitions(hello.name, declare.partitions)
        except AsyncDMTLError as error:
            log.warning("refused %s: %s", connection.peer, error)
            self._emit({"event": "refused", "worker": connection.session.worker, "reason": str(error)})
            await connection.fail(error)
            self._ledger.merge(connection.session.ledger, worker="(refused)")
            return
        except asyncio.CancelledError:
            await connection.fail(AsyncDMTLError("the server ended"))
            raise
        except Exception as error:
            log.exception("admission of %s failed", connection.peer)
            await connection.fail(AsyncDMTLError(f"internal error: {error!r}"))
            return
        member = Member(hello.name, connection, declare.partitions)
        self.members[member.name] = member
        self._ledger.merge(connection.session.ledger, worker=member.name)
        connection.session.ledger = self._ledger
        connection.on_lost = self._changed.set
        self._emit({"event": "joined", "worker": member.name, "partitions": len(member.partitions)})
        log.info("run %s: %s joined with %d partitions", self._run, connection.peer, len(member.partitions))
        self._changed.set()

    def _check_name(self, name: str) -> None:
        if not self._open:
            raise UsageError("worker", "must join before the run starts", name)
        if name in self.members:
            raise UsageError("--name", "must be unique; already joined", name)

    def _check_partitions(self, name: str, partitions: Sequence[PartitionInfo]) -> None:
        known = self._known()
        for info in partitions:
            if self._cover is not None and info.id not in self._cover:
                raise PlacementError(f"worker {name!r}", "may store known partitions only; unknown", info.id)
            if info.id in known and known[info.id] != info:
                raise DataError(
                    f"partition {info.id!r} of worker {name!r}",
                    f"must be the same data as at {self._holders(info.id)} ({_describe(known[info.id])})",
                    _describe(info),
                )
        features = {info.features for info in (*known.values(), *partitions)}
        if len(features) > 1:
            raise DataError(f"worker {name!r}", "must store as many features as the others", sorted(features))

    def _known(self) -> dict[str, PartitionInfo]:
        return {info.id: info for member in self.members.values() for info in member.partitions}

    def _holders(self, partition: str) -> str:
        holders = [
            member.name
            for member in self.members.values()
            if any(info.id == partition for info in member.partitions)
        ]
        return ", ".join(holders)

    def _ready(self) -> bool:
        if self._workers is not None:
            return len(self.members) >= self._workers
        return not self._uncovered()

    def _uncovered(self) -> list[str]:
        known = self._known()
        return [name for name in self._cover or () if name not in known]

    def _lacking(self) -> str:
        joined = ", ".join(sorted(self.members, key=natural_key)) or "none"
        if self._workers is not None:
            return f"{len(self.members)} of {self._workers} are here ({joined})"
        return f"no holder of {self._uncovered()} is here (joined: {joined})"

    def _drop_lost(self) -> None:
        """Forget workers that left before the start; they may come again."""
        for member in [member for member in self.members.values() if member.connection.lost]:
            log.warning("run %s: %s left before the start", self._run, member.connection.peer)
            self._emit({"event": "left", "worker": member.name})
            del self.members[member.name]


def _describe(info: PartitionInfo) -> str:
    return f"task {info.task}, {info.rows} rows, {info.features} features, digest {info.digest.hex()[:12]}"
