from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from support.pairs import LIMIT, SILENCE, pair

from asyncdmtl.blinding.agreement import Agreement, SecretProofs
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.errors import AsyncDMTLError, AuthenticationError, PeerError, RemoteProtocolError, WaitError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.joining import VERSION, Hello, Welcome
from asyncdmtl.protocol.messages.keys import (
    GroupKeys,
    KeyControl,
    KeyOrder,
    KeyRequest,
    KeysGiven,
    RenewedKeys,
)
from asyncdmtl.worker.key_agreement import KeyAgreement
from asyncdmtl.worker.state import WorkerState

PROOFS = SecretProofs(b"a secret of the members")
FIRST, SECOND, THIRD = (bytes([n]) * 32 for n in range(3))


class Asked:
    """A worker that asks for the key of its group, and the server's end of its connection."""

    def __init__(self, server: Connection, worker: Connection) -> None:
        self.server, self.worker = server, worker
        self.state = WorkerState("w0", agrees=True)
        self.state.enter("run")
        assert self.state.group is not None
        self.own = self.state.group
        self.given: asyncio.Queue[KeyControl] = asyncio.Queue()
        self.other = Agreement("run", "w1", PROOFS)
        server.on_keys = self.given.put_nowait
        self.agreement = KeyAgreement(worker, self.state, PROOFS)

    async def begin(self) -> tuple[asyncio.Task[None], KeyRequest]:
        asking = asyncio.create_task(self.agreement.agree(LIMIT[0]))
        return asking, await self.server.receive((KeyRequest,), *LIMIT)

    async def gifts(self, order: KeyOrder) -> tuple[bytes, ...]:
        self.server.write(order)
        answer = await self.given.get()
        assert isinstance(answer, KeysGiven)
        assert answer.order == order.order
        return answer.gifts

    async def failure(self, message: KeyControl) -> AsyncDMTLError:
        """The error with which the worker ends the connection because of a message."""
        lost = asyncio.Event()
        self.worker.on_lost = lost.set
        self.server.write(message)
        await lost.wait()
        assert self.worker.failure is not None
        return self.worker.failure


@asynccontextmanager
async def asked() -> AsyncIterator[Asked]:
    async with pair() as (server, worker):
        await worker.send(Hello(VERSION, "w0", SILENCE), *LIMIT)
        await server.receive((Hello,), *LIMIT)
        await server.send(Welcome("run", {}, SILENCE), *LIMIT)
        await worker.receive((Welcome,), *LIMIT)
        yield Asked(server, worker)


async def test_the_first_worker_keeps_its_key_and_gives_it() -> None:
    async with asked() as here:
        asking, request = await here.begin()
        assert (request.group, request.epoch, request.fresh) == (here.own.name, 0, True)
        # Orders may follow at once.
        here.server.write(GroupKeys())
        (gift,) = await here.gifts(KeyOrder(7, 0, (here.other.offer,)))
        await asking
        assert here.state.group is here.own
        assert here.state.agreed
        assert here.other.taken(request.offer, gift).secrets == here.own.secrets


async def test_another_worker_takes_the_key_and_renews_it() -> None:
    async with asked() as here:
        asking, request = await here.begin()
        group = GroupKey(FIRST, "run")
        here.server.write(GroupKeys(here.other.offer, here.other.gift(group, request.offer)))
        await asking
        assert here.state.group is not None
        assert here.state.group.secrets == (FIRST,)
        assert here.state.digest is here.state.group.digest
        # It draws the next key, and takes it like the others when the server passes it on.
        order = KeyOrder(0, 1, (request.offer, here.other.offer))
        own, theirs = await here.gifts(order)
        assert here.state.group.secrets == (FIRST,)
        here.server.write(RenewedKeys(request.offer, own))
        (again,) = await here.gifts(KeyOrder(1, 1, (here.other.offer,)))
        assert again == theirs
        renewed = here.other.taken(request.offer, again)
        assert here.state.group.secrets == renewed.secrets
        assert renewed.secrets[0] == FIRST
        assert renewed.epoch == 1


async def test_a_stranger_is_given_nothing() -> None:
    async with asked() as here:
        asking, _ = await here.begin()
        here.server.write(GroupKeys())
        await asking
        stranger = replace(here.other.offer, name="w2")
        gifts = await here.gifts(KeyOrder(0, 0, (stranger, here.other.offer)))
        assert gifts[0] == b""
        assert gifts[1]


@pytest.mark.parametrize(
    "secrets", [(FIRST,), (SECOND, THIRD), (FIRST, SECOND)], ids=["same", "other", "twice"]
)
async def test_no_key_but_the_next_is_taken(secrets: tuple[bytes, ...]) -> None:
    async with asked() as here:
        asking, request = await here.begin()
        held = (FIRST, SECOND) if secrets == (FIRST, SECOND) else (FIRST,)
        gift = here.other.gift(GroupKey.of_secrets(held, "run"), request.offer)
        here.server.write(GroupKeys(here.other.offer, gift))
        await asking
        other = here.other.gift(GroupKey.of_secrets(secrets, "run"), request.offer)
        error = await here.failure(RenewedKeys(here.other.offer, other))
        assert isinstance(error, RemoteProtocolError)
        assert "does not follow key" in str(error)
        assert here.state.group is not None
        assert here.state.group.secrets == held


async def test_what_no_member_has_sealed_is_refused() -> None:
    async with asked() as here:
        asking, _ = await here.begin()
        server = Agreement("run", "w1", SecretProofs(b"a secret that is guessed"))
        here.server.write(GroupKeys(server.offer, bytes(48)))
        with pytest.raises(AuthenticationError, match="worker 'w1' did not prove"):
            await asking
        assert here.state.group is here.own
        assert not here.state.agreed


async def test_orders_for_other_keys_are_refused() -> None:
    for epoch, before in ((0, False), (2, True)):
        async with asked() as here:
            asking, _ = await here.begin()
            if before:
                here.server.write(GroupKeys())
                await asking
            error = await here.failure(KeyOrder(0, epoch, ()))
            assert f"key {epoch} is asked of a worker that cannot give it" in str(error)
            asking.cancel()
            await asyncio.wait([asking])


async def test_waits_have_an_end() -> None:
    async with asked() as here:
        with pytest.raises(WaitError, match=r"no key of the group came .*--start-timeout"):
            await here.agreement.agree(0.01)
    async with asked() as here:
        asking, _ = await here.begin()
        await here.server.fail(AsyncDMTLError("the server ended"))
        with pytest.raises(PeerError, match="the server ended"):
            await asking
