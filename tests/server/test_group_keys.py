from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.members import Script

from asyncdmtl.blinding.agreement import Agreement, SecretProofs
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.errors import AuthenticationError, LinkError, RemoteProtocolError, UsageError, WaitError
from asyncdmtl.protocol.messages.keys import GroupKeys, KeyOrder, KeyRequest, KeysGiven, RenewedKeys
from asyncdmtl.server.group_keys import KeyExchange

PROOFS = SecretProofs(b"a secret of the members")
LIMIT = (10.0, "--join-timeout")


class Asking(Script):
    """A worker that asks for the key, and gives it if it is ordered to and is not `mute`."""

    def __init__(self, name: str, secrets: tuple[bytes, ...] | None = None) -> None:
        super().__init__(name)
        self.agreement = Agreement("run", name, PROOFS)
        self.group = GroupKey.of_secrets(secrets or (name.encode() * 16,), "run")
        self.fresh, self.mute = secrets is None, False
        self.ordered = asyncio.Event()
        connection: Any = self.member.connection
        connection.write = self.take

    @property
    def request(self) -> KeyRequest:
        return KeyRequest(self.agreement.offer, self.group.name, self.group.epoch, self.fresh)

    def take(self, message: Any) -> None:
        self.sent.append(message)
        connection = self.member.connection
        if isinstance(message, GroupKeys | RenewedKeys) and message.giver is not None:
            self.group = self.agreement.taken(message.giver, message.gift)
        elif isinstance(message, KeyOrder) and self.mute:
            self.ordered.set()
        elif isinstance(message, KeyOrder):
            group = self.group
            if message.epoch > group.epoch:
                group = GroupKey(bytes(32), "run", group)
            assert connection.on_keys is not None
            gifts = tuple(self.agreement.gift(group, taker) for taker in message.takers)
            connection.on_keys(KeysGiven(message.order, gifts))

    def lose(self) -> None:
        self.member.connection.failure = LinkError("gone", peer=self.member.name)
        self.member.connection.link.closed.set()


class Group:
    """A server's exchange of keys, between whose workers nobody comes or goes by himself."""

    def __init__(self, *, begun: bool = False) -> None:
        self.begun = begun
        self.changed = asyncio.Event()
        self.keys = KeyExchange(self._change, lambda: self.begun)

    async def _change(self, seconds: float | None) -> None:
        self.changed.clear()
        await asyncio.wait([asyncio.ensure_future(self.changed.wait())], timeout=seconds)

    async def join(self, *workers: Asking) -> None:
        for worker in workers:
            await self.keys.agree(worker.member.connection, worker.request, LIMIT)

    async def renew(self, workers: list[Asking], excluded: tuple[str, ...] = ()) -> KeyOrder | None:
        """As a server does before a plan for these workers."""
        by_name = {worker.member.name: worker for worker in workers}
        order, giver = self.keys.due(list(by_name), excluded), self.keys.giver(list(by_name))
        if order is not None and giver is not None:
            gifts = await self.keys.given(giver, order, LIMIT)
            for name, message in self.keys.renewed(giver, order, gifts).items():
                by_name[name].take(message)
        return order


async def test_all_have_the_key_of_the_first() -> None:
    group, workers = Group(), [Asking("w0"), Asking("w1"), Asking("w2")]
    first = workers[0].group.secrets
    await group.join(*workers)
    assert all(worker.group.secrets == first for worker in workers)
    assert await group.renew(workers) is None


async def test_the_next_one_that_has_the_key_gives_it_if_the_first_cannot() -> None:
    group, (one, two, three, four) = Group(begun=True), [Asking(f"w{n}") for n in range(4)]
    group.begun = False
    await group.join(one, two)
    group.begun = True
    one.lose()
    await group.join(three)
    assert three.group.secrets == one.group.secrets
    # It is lost while it is asked.
    two.mute = True
    asking = asyncio.create_task(group.join(four))
    await two.ordered.wait()
    two.lose()
    await asking
    assert four.group.secrets == one.group.secrets


async def test_an_excluded_worker_is_not_given_the_next_key() -> None:
    group, (one, two, three, four) = Group(), [Asking(f"w{n}") for n in range(4)]
    await group.join(one, two, three, four)
    order = await group.renew([two, three], excluded=("w0",))
    assert order is not None
    assert (order.epoch, [taker.name for taker in order.takers]) == (1, ["w1", "w2"])
    assert two.group.secrets == three.group.secrets
    assert two.group.secrets[:-1] == one.group.secrets
    # Once is enough, also for one that was not in that plan.
    assert await group.renew([two, three], excluded=("w0",)) is None
    order = await group.renew([two, three, four], excluded=("w0",))
    assert order is not None
    assert (order.epoch, [taker.name for taker in order.takers]) == (1, ["w3"])
    assert four.group.secrets == two.group.secrets
    assert await group.renew([two, four], excluded=("w0", "w2")) is not None
    assert two.group.epoch == four.group.epoch == 2


async def test_a_start_without_workers_begins_with_another_key() -> None:
    group, one, two = Group(), Asking("w0"), Asking("w1")
    await group.join(one)
    one.lose()
    own = two.group.secrets
    await group.join(two)
    assert two.group.secrets == own


async def test_a_resumed_run_waits_for_a_worker_that_has_its_key() -> None:
    group, new, old, later = Group(begun=True), Asking("w0"), Asking("w1", (b"1" * 32,)), Asking(
        "w2", (b"1" * 32, b"2" * 32)
    )  # fmt: skip
    joining = asyncio.create_task(group.join(new))
    await asyncio.sleep(0)
    await group.join(old)
    group.changed.set()
    await joining
    assert new.group.secrets == old.group.secrets
    # The latest key counts, and the others are given it before the next plan.
    await group.join(later)
    await group.renew([new, old, later])
    assert new.group.secrets == old.group.secrets == later.group.secrets == (b"1" * 32, b"2" * 32)


async def test_nobody_with_the_key_comes_in_time() -> None:
    group, worker = Group(begun=True), Asking("w0")
    with pytest.raises(WaitError, match="no worker is here that has the key of this run"):
        await group.keys.agree(worker.member.connection, worker.request, (0.01, "--join-timeout"))


async def test_what_breaks_a_rule_is_refused() -> None:
    group, one, two = Group(), Asking("w0"), Asking("w1")
    await group.join(one)
    with pytest.raises(RemoteProtocolError, match="offers a key as 'w1'"):
        await group.keys.agree(one.member.connection, two.request, LIMIT)
    assert one.member.connection.on_keys is not None
    with pytest.raises(RemoteProtocolError, match="a worker does not send key-order"):
        one.member.connection.on_keys(KeyOrder(0, 0, ()))
    # Answers that nobody waits for are nothing.
    one.member.connection.on_keys(KeysGiven(99, ()))
    two.take = lambda message: None  # type: ignore[method-assign]
    one.agreement.gift = lambda group, taker: b""  # type: ignore[method-assign]
    with pytest.raises(AuthenticationError, match="'w1' did not prove to 'w0' that it is a member"):
        await group.join(two)


async def test_a_worker_that_answers_for_fewer_is_an_error() -> None:
    group, one = Group(), Asking("w0")
    await group.join(one)
    connection: Any = one.member.connection
    connection.write = lambda order: connection.on_keys(KeysGiven(order.order, ()))
    with pytest.raises(RemoteProtocolError, match="gave 0 keys for 1"):
        await group.keys.given("w0", KeyOrder(5, 0, (one.agreement.offer,)), LIMIT)
    connection.write = lambda order: None
    with pytest.raises(WaitError, match="did not give the key of the group"):
        await group.keys.given("w0", KeyOrder(6, 0, (one.agreement.offer,)), (0.01, "--round-timeout"))


async def test_all_workers_or_none_agree() -> None:
    keys, one, two, three = KeyExchange(None, bool), *map(Asking, ("w0", "w1", "w2"))  # type: ignore[arg-type]
    keys.note_manner(one.member.connection, agrees=True)
    # Further messages of the same worker tell nothing new.
    keys.note_manner(one.member.connection, agrees=False)
    with pytest.raises(UsageError, match=r"must be given to all .*'w0' has it, and 'w1' has not"):
        keys.note_manner(two.member.connection, agrees=False)
    one.lose()
    keys.note_manner(two.member.connection, agrees=False)
    with pytest.raises(UsageError, match="'w2' has it, and 'w1' has not"):
        keys.note_manner(three.member.connection, agrees=True)
