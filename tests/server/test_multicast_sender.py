from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.broadcasts import Round
from support.groups import LOOPBACK, free_group
from support.placements import HETEROGENEOUS, HOMOGENEOUS

from asyncdmtl.multicast.rate import RateControl
from asyncdmtl.multicast.sending import DatagramBlock
from asyncdmtl.net.udp import Group, GroupReceiver, GroupSender
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.multicast_sender import MulticastSender
from asyncdmtl.worker.multicast_receiver import MulticastReceiver

FAST = 1e9
PATIENCE = 0.5


class Wire(GroupSender):
    """Loses, doubles and swaps datagrams before they are sent."""

    def __init__(self, group: Group, seed: int, loss: float, mixed: bool, burst: int = 1) -> None:
        super().__init__(group, LOOPBACK)
        self._chance = random.Random(seed)
        self._loss, self._mixed, self._burst = loss, mixed, burst
        self._left = 0

    async def send(self, block: DatagramBlock) -> None:
        cut = [block.datagrams[at : at + block.size] for at in range(0, len(block.datagrams), block.size)]
        kept = [datagram for datagram in cut if not self._lost()]
        if self._mixed:
            kept += kept[:3]
            self._chance.shuffle(kept)
        for datagram in kept:
            await super().send(DatagramBlock(datagram, len(datagram), 1))

    def _lost(self) -> bool:
        if not self._left and self._chance.random() < self._loss / self._burst:
            self._left = self._burst
        self._left -= 1 if self._left else 0
        return self._left > 0 or (self._burst == 1 and self._chance.random() < self._loss)


class Control:
    """Connections whose answers take a turn of the event loop."""

    def __init__(self, made: Round, listeners: dict[str, MulticastReceiver]) -> None:
        self.made, self.listeners = made, listeners
        self.loop: MulticastSender | None = None
        self.delivered: list[tuple[str, int]] = []
        self.silent: set[str] = set()
        self.given_up: list[str] = []
        self.counted = 0

    def ask(self, worker: str, index: int, count: int) -> None:
        for one in range(index, index + count):
            asyncio.get_running_loop().call_soon(self._answer, worker, one)

    def deliver(self, worker: str, index: int) -> None:
        self.delivered.append((worker, index))
        k = self.made.workers.index(worker)
        round_ = self.listeners[worker].round
        assert round_ is not None
        round_.fill(index, self.made.own(k, index).copy())

    def give_up(self, worker: str) -> None:
        self.given_up.append(worker)

    def count(self, block: DatagramBlock) -> None:
        self.counted += len(block.datagrams)

    def _answer(self, worker: str, index: int) -> None:
        assert self.loop is not None
        if worker not in self.silent:
            self.loop.take_report(worker, index, *self.listeners[worker].lacks(index))


class GroupCluster:
    """A server and its listeners in one process, on real sockets."""

    def __init__(self, made: Round, sender: GroupSender, group: Group, rate: float = FAST) -> None:
        self.made, self.sender = made, sender
        self.listeners = {name: MulticastReceiver(GroupReceiver(group, LOOPBACK)) for name in made.workers}
        self.control = Control(made, self.listeners)
        self.rate = RateControl(rate)
        self.loop = self.control.loop = MulticastSender(sender, self.rate, self.control, patience=PATIENCE)

    def begin(self) -> None:
        for k, listener in enumerate(self.listeners.values()):
            made = self.made
            listener.begin(made.stream(), made.layout, made.solvers[k], lambda: None)
        self.loop.begin(self.made.broadcast())

    async def run(self) -> None:
        self.begin()
        running = asyncio.create_task(self.loop.run())
        for index in range(self.made.layout.ranges):
            await asyncio.sleep(0)
            self.loop.ready(index + 1)
        async with asyncio.timeout(30):
            await running

    def check(self) -> None:
        for k, listener in enumerate(self.listeners.values()):
            assert listener.round is not None
            self.made.check(k, listener.round)


@contextmanager
def group_cluster(
    made: Round, sender: GroupSender, group: Group, rate: float = FAST
) -> Iterator[GroupCluster]:
    opened = GroupCluster(made, sender, group, rate)
    try:
        yield opened
    finally:
        sender.close()
        for listener in opened.listeners.values():
            listener.receiver.close()


def example(placement: Placement = HOMOGENEOUS) -> Round:
    return Round(placement, length=60_000, range_bytes=16_000, piece_bytes=1000)


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["equal", "unequal"])
async def test_all_get_what_they_need(placement: Placement, loss: float) -> None:
    group, made = free_group(), example(placement)
    with group_cluster(made, Wire(group, 1, loss, mixed=True), group) as opened:
        await opened.run()
        opened.check()
        assert not opened.control.delivered
        assert bool(opened.loop.repaired) == bool(loss)


async def test_without_loss_each_row_is_sent_once() -> None:
    group, made = free_group(), example()
    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        await opened.run()
        opened.check()
        rows = sum(part.nbytes for part in made.rows)
        assert rows < opened.loop.sent < 1.04 * rows
        assert opened.control.counted == opened.loop.sent
        assert opened.loop.repaired == 0


async def test_bursts_are_repaired() -> None:
    group, made = free_group(), example()
    with group_cluster(made, Wire(group, 2, 0.1, mixed=False, burst=12), group) as opened:
        await opened.run()
        opened.check()


async def test_one_repair_serves_all() -> None:
    """Each listener loses a different tenth; repairs are far fewer than the sum of the losses."""
    group, made = free_group(), example()
    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        chance = random.Random(3)
        for listener in opened.listeners.values():
            lossy(listener.receiver, chance, 0.1)
        await opened.run()
        opened.check()
        lost = sum(reception.lost for reception in opened.loop.receptions.values())
        assert opened.loop.repaired < 0.75 * lost * made.layout.piece_bytes


def lossy(receiver: GroupReceiver, chance: random.Random, loss: float) -> None:
    """Let a receiver lose datagrams after the socket."""
    hand_over = receiver._hand_over

    def sometimes(datagram: memoryview) -> None:
        if chance.random() >= loss:
            hand_over(datagram)

    receiver._hand_over = sometimes  # type: ignore[method-assign]


async def test_who_hears_nothing_is_served_on_its_connection() -> None:
    group, made = free_group(), example()
    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        deaf = made.workers[2]
        lossy(opened.listeners[deaf].receiver, random.Random(), 1.0)
        await opened.run()
        opened.check()
        assert opened.control.delivered == [(deaf, index) for index in range(made.layout.ranges)]
        assert opened.loop.repaired == 0


async def test_who_begins_late_gets_all() -> None:
    group, made = free_group(), example()
    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        late = opened.listeners[made.workers[0]]
        answer = opened.control._answer

        def begin_when_asked(worker: str, index: int) -> None:
            if index == 0 and worker == made.workers[0]:
                late.begin(made.stream(), made.layout, made.solvers[0], lambda: None)
            answer(worker, index)

        opened.control._answer = begin_when_asked  # type: ignore[method-assign]
        opened.begin()
        late.receiver.forget(made.stream().name)
        running = asyncio.create_task(opened.loop.run())
        opened.loop.ready(made.layout.ranges)
        async with asyncio.timeout(30):
            await running
        opened.check()
        assert late.receiver.counts.taken
        assert opened.control.delivered[0] == (made.workers[0], 0)


async def test_who_is_lost_is_not_waited_for() -> None:
    group, made = free_group(), example()
    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        lost, *others = made.workers
        opened.control.silent.add(lost)
        opened.begin()
        running = asyncio.create_task(opened.loop.run())
        opened.loop.ready(made.layout.ranges)
        done, _ = await asyncio.wait([running], timeout=PATIENCE / 2)
        assert not done
        opened.loop.drop(lost)
        async with asyncio.timeout(30):
            await running
        for name in others:
            round_ = opened.listeners[name].round
            assert round_ is not None
            made.check(made.workers.index(name), round_)


async def test_who_does_not_answer_is_served_on_its_connection() -> None:
    group, made = free_group(), example()
    with group_cluster(made, Wire(group, 4, 0.05, mixed=True), group) as opened:
        mute = made.workers[0]
        opened.control.silent.add(mute)
        await opened.run()
        opened.check()
        assert opened.control.delivered == [(mute, index) for index in range(made.layout.ranges)]
        assert opened.control.given_up == [mute]
        # Its report is too late, but no error.
        opened.loop.take_report(mute, 0, b"", 0)


async def test_replays_of_an_old_round_are_foreign() -> None:
    group, made = free_group(), example()
    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        await opened.run()
        listener = opened.listeners[made.workers[0]]
        listener.end()
        before = listener.receiver.counts.taken
        for block in made.broadcast().next_range():
            await opened.sender.send(block)
        listener.receiver.read()
        assert listener.receiver.counts.taken == before
        assert listener.receiver.counts.foreign > 0


async def test_the_pace_is_asked_for_every_byte_with_its_headers() -> None:
    group, made = free_group(), example()
    asked = []

    class Slow(RateControl):
        def wait(self, now: float, size: int) -> float:
            asked.append(size)
            return 1e-6

    with group_cluster(made, GroupSender(group, LOOPBACK), group) as opened:
        opened.loop.rate = Slow(1.0)
        await opened.run()
        pieces = made.layout.pieces * len(made.rows[0])
        assert sum(asked) == opened.loop.sent + pieces * group.headers
