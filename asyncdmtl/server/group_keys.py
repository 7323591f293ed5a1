"""The server's part in the agreement of workers on the key of a blind run: it passes on what it cannot read.

The first worker keeps the key that it has drawn, and each that comes later is given that key by one that has
it. When a worker that has the key is excluded, one of the others draws a new one before the next plan, and
seals it for all but the excluded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count

from asyncdmtl.blinding.agreement import Offer
from asyncdmtl.errors import AsyncDMTLError, AuthenticationError, RemoteProtocolError, UsageError, WaitError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.joining import Declare, DeclareSome
from asyncdmtl.protocol.messages.keys import (
    GroupKeys,
    KeyControl,
    KeyOrder,
    KeyRequest,
    KeysGiven,
    RenewedKeys,
)

log = logging.getLogger(__name__)

# Seconds within which a worker must seal the key for another that joins, which takes milliseconds, and the
# option that limits such waits; after that the next one is asked.
ANSWER_LIMIT = 10.0, "--silence-timeout"


@dataclass(eq=False)
class Holder:
    """A worker that has a key of the group.

    Attributes
    ----------
    connection : Connection
    offer : Offer
    epoch : int
        The number of keys that its key has replaced.
    """

    connection: Connection
    offer: Offer
    epoch: int


class KeyExchange:
    """Lets workers agree on the key of their group.

    Parameters
    ----------
    change : callable
        Waits until a worker comes or goes, at most these seconds (`Membership.change`).

    begun : callable
        Whether something is sealed with the key that the run cannot do without.
    """

    def __init__(self, change: Callable[[float | None], Awaitable[None]], begun: Callable[[], bool]) -> None:
        self._change = change
        self._begun = begun
        # The name of each worker, and whether it agrees on a key.
        self._manners: dict[Connection, tuple[str, bool]] = {}
        self._group = b""
        self._epoch = 0
        self._holders: dict[str, Holder] = {}
        # The workers that were told the present key, gone ones included.
        self._told: set[str] = set()
        self._orders = count()
        self._answers: dict[int, asyncio.Future[tuple[bytes, ...]]] = {}

    async def next_piece(
        self, connection: Connection, limit: tuple[float, str], *, blind: bool
    ) -> Declare | DeclareSome:
        """The next piece of a worker's declaration, before whose first it may ask for the key of a blind run.

        Raises as `note_manner`, `agree` and `Connection.receive`.
        """
        if not blind:
            return await connection.receive((Declare, DeclareSome), *limit)
        message: KeyRequest | Declare | DeclareSome
        message = await connection.receive((KeyRequest, Declare, DeclareSome), *limit)
        self.note_manner(connection, agrees=isinstance(message, KeyRequest))
        if not isinstance(message, KeyRequest):
            return message
        await self.agree(connection, message, limit)
        return await connection.receive((Declare, DeclareSome), *limit)

    def note_manner(self, connection: Connection, *, agrees: bool) -> None:
        """Note by the first message of a worker whether it agrees on a key, as all must do, or none.

        Raises
        ------
        UsageError
            Another worker that is here does otherwise.
        """
        self._manners = {known: manner for known, manner in self._manners.items() if not known.lost}
        name = connection.session.worker
        for other, theirs in () if connection in self._manners else self._manners.values():
            if theirs != agrees:
                rule = "must be given to all workers of a blind run, or to none"
                having, lacking = (name, other) if agrees else (other, name)
                told = f"{having!r} has it, and {lacking!r} has not"
                raise UsageError("--group-agree or --group-ca", rule, told)
        self._manners.setdefault(connection, (name, agrees))

    async def agree(self, connection: Connection, request: KeyRequest, limit: tuple[float, str]) -> None:
        """Answer a worker's request with the key of the group, as soon as another worker gives it.

        Parameters
        ----------
        connection : Connection
        request : KeyRequest
        limit : (float, str)
            Seconds to wait for a worker that has the key, and the option that sets them.

        Raises
        ------
        AuthenticationError
            The worker did not prove to the one that has the key that it is a member of the group.
        WaitError
            No worker that has the key came.
        """
        name = request.offer.name
        if name != connection.session.worker:
            raise RemoteProtocolError(f"{connection.peer} offers a key as {name!r}")
        connection.on_keys = self._answered
        end = asyncio.get_running_loop().time() + limit[0]
        while (found := await self._found(request)) is None:
            if (left := end - asyncio.get_running_loop().time()) <= 0:
                told = "no worker is here that has the key of this run, with which its data are sealed"
                raise WaitError(told, seconds=limit[0], option=limit[1])
            await self._change(min(left, ANSWER_LIMIT[0]))
        answer, epoch = found
        self._holders = {n: holder for n, holder in self._holders.items() if not holder.connection.lost}
        self._holders[name] = Holder(connection, request.offer, epoch)
        if epoch == self._epoch:
            self._told.add(name)
        await connection.send(answer, *limit)

    def due(self, names: Sequence[str], excluded: Collection[str]) -> KeyOrder | None:
        """The order to give these workers a key, if some lack it, or a worker that has it is excluded.

        Parameters
        ----------
        names : sequence of str
            The workers of the next plan.
        excluded : collection of str
            The workers that may not come back.
        """
        if not self._group:
            return None
        epoch = self._epoch + bool(self._told & set(excluded))
        here = [self._holders[name] for name in names if name in self._holders]
        takers = tuple(holder.offer for holder in here if holder.epoch < epoch)
        return KeyOrder(next(self._orders), epoch, takers) if takers else None

    def giver(self, names: Sequence[str]) -> str | None:
        """The first of these workers that has the present key; None if none has it."""
        here = self._here()
        return next((name for name in names if name in here), None)

    async def given(self, giver: str, order: KeyOrder, limit: tuple[float, str]) -> tuple[bytes, ...]:
        """What a worker seals for others; `limit` is the seconds to wait, and the option that sets them.

        Raises
        ------
        WaitError, LinkError, PeerError, RemoteProtocolError
            It did not answer as it should.
        """
        connection, loop = self._holders[giver].connection, asyncio.get_running_loop()
        answer: asyncio.Future[tuple[bytes, ...]] = loop.create_future()
        self._answers[order.order] = answer
        closed = loop.create_task(connection.link.closed.wait())
        try:
            connection.write(order)
            await asyncio.wait((answer, closed), timeout=limit[0], return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
            del self._answers[order.order]
        if not answer.done():
            if connection.failure is not None:
                raise connection.failure
            told = f"{connection.peer} did not give the key of the group"
            raise WaitError(told, seconds=limit[0], option=limit[1])
        gifts = answer.result()
        if len(gifts) != len(order.takers):
            raise RemoteProtocolError(f"{connection.peer} gave {len(gifts)} keys for {len(order.takers)}")
        return gifts

    def renewed(self, giver: str, order: KeyOrder, gifts: Sequence[bytes]) -> dict[str, RenewedKeys]:
        """The messages that bring workers a key; none for one that the giver did not take for a member."""
        if order.epoch > self._epoch:
            self._epoch, self._told = order.epoch, set()
            log.info("worker %s drew a new key for the %d workers of the group", giver, len(gifts))
        offer, given = self._holders[giver].offer, dict(zip(order.takers, gifts, strict=True))
        for taker in (taker for taker, gift in given.items() if gift):
            self._holders[taker.name].epoch = order.epoch
            self._told.add(taker.name)
        return {taker.name: RenewedKeys(offer, gift) for taker, gift in given.items() if gift}

    async def _found(self, request: KeyRequest) -> tuple[GroupKeys, int] | None:
        """The answer to a request and the epoch of its key; None while no worker is here that can give it."""
        here = self._here()
        if not (self._begun() and (self._group or request.fresh)) and not here:
            # What was sealed with another key is gone with the workers that had it.
            self._group, self._epoch, self._told = request.group, request.epoch, set()
        if request.group == self._group:
            # After a restart of the server, a worker may have a later key than those before it.
            if request.epoch > self._epoch:
                self._epoch, self._told = request.epoch, set()
            return GroupKeys(), request.epoch
        for giver in here:
            holder = self._holders[giver]
            order = KeyOrder(next(self._orders), holder.epoch, (request.offer,))
            try:
                (gift,) = await self.given(giver, order, ANSWER_LIMIT)
            except AsyncDMTLError as error:
                log.warning("worker %s gave no key: %s", giver, error)
                continue
            if not gift:
                raise no_member(request.offer.name, giver)
            return GroupKeys(holder.offer, gift), order.epoch
        return None

    def _here(self) -> list[str]:
        """The workers with the present key that are connected."""
        return [
            name for name, holder in self._holders.items()
            if holder.epoch == self._epoch and not holder.connection.lost
        ]  # fmt: skip

    def _answered(self, message: KeyControl) -> None:
        """Called with the answer of a worker to an order."""
        if not isinstance(message, KeysGiven):
            raise RemoteProtocolError(f"a worker does not send {message.kind}")
        answer = self._answers.get(message.order)
        if answer is not None and not answer.done():
            answer.set_result(message.gifts)


def no_member(name: str, giver: str) -> AuthenticationError:
    """The error that a worker did not prove to `giver` that it belongs to the group."""
    return AuthenticationError(f"worker {name!r} did not prove to {giver!r} that it is a member of the group")
