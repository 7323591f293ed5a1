from __future__ import annotations

import random

import pytest
from support.broadcasts import Round, datagrams
from support.placements import HETEROGENEOUS

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.multicast.datagrams import OVERHEAD
from asyncdmtl.multicast.receiving import Reassembly
from asyncdmtl.multicast.sending import BLOCK_BYTES, MAX_REPAIRS, Broadcast


@pytest.fixture
def made() -> Round:
    return Round(HETEROGENEOUS, length=400, range_bytes=100, piece_bytes=30)


def hear(made: Round, sent: list[bytes], ends: list[Reassembly], loss: float, chance: random.Random) -> None:
    """Each end receives its own choice of datagrams."""
    for end in ends:
        for datagram in sent:
            if chance.random() >= loss:
                end.take(memoryview(datagram))


def answer_all(made: Round, broadcast: Broadcast, index: int, ends: list[Reassembly]) -> bool:
    """Let all listeners that were asked report; return whether the last report was recognised as the last."""
    asked = broadcast.waiting(index)
    told = []
    for name, end in zip(made.workers, ends, strict=True):
        if name in asked:
            told.append(broadcast.take_report(name, index, end.lacks(index), end.seen(index)))
    assert not any(told[:-1])
    return told[-1]


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.2, 0.5])
def test_everybody_gets_everything(made: Round, loss: float) -> None:
    chance = random.Random(7)
    broadcast = made.broadcast()
    ends = [made.reassembly(k) for k in range(len(made.workers))]
    for index in range(made.layout.ranges):
        hear(made, datagrams(broadcast.next_range(int(loss * broadcast.count))), ends, loss, chance)
        assert answer_all(made, broadcast, index, ends)
        while broadcast.range_to_repair() is not None:
            assert broadcast.range_to_repair() == index
            for name in broadcast.take_unrepairable(index):
                k = made.workers.index(name)
                ends[k].fill(index, made.own(k, index).copy())
            if broadcast.lacking(index):
                hear(made, datagrams(broadcast.repair(index)), ends, loss, chance)
                answer_all(made, broadcast, index, ends)
    assert broadcast.settled
    for k, end in enumerate(ends):
        made.check(k, end)


def test_one_fresh_row_serves_all_listeners_that_lost_one(made: Round) -> None:
    broadcast = made.broadcast()
    ends = [made.reassembly(k) for k in range(len(made.workers))]
    sent = datagrams(broadcast.next_range())
    count = made.layout.pieces_per_range
    for k, end in enumerate(ends):
        # Each listener loses a different row of the first piece, if it needs any.
        lost = (k % len(made.solvers[k].own)) * count if made.solvers[k].own else 0
        need = len(made.solvers[k].own)
        kept = [d for i, d in enumerate(sent) if i != lost and i // count < need]
        hear(made, kept, [end], 0.0, random.Random())
    answer_all(made, broadcast, 0, ends)
    assert broadcast.range_to_repair() == 0
    assert broadcast.take_unrepairable(0) == []
    mended = datagrams(broadcast.repair(0))
    assert len(mended) == 1
    assert broadcast.repaired(0)
    hear(made, mended, ends, 0.0, random.Random())
    answer_all(made, broadcast, 0, ends)
    assert broadcast.range_to_repair() is None
    lacked = [broadcast.receptions[name].lacked for name in made.workers]
    assert lacked == [1 if solver.own else 0 for solver in made.solvers]


def test_a_listener_that_received_nothing_gets_the_range_over_tcp(made: Round) -> None:
    broadcast = made.broadcast()
    ends = [made.reassembly(k) for k in range(len(made.workers))]
    hear(made, datagrams(broadcast.next_range()), ends[1:], 0.0, random.Random())
    answer_all(made, broadcast, 0, ends)
    assert broadcast.range_to_repair() == 0
    assert broadcast.take_unrepairable(0) == [made.workers[0]]
    assert not broadcast.lacking(0)
    assert broadcast.range_to_repair() is None
    assert broadcast.receptions[made.workers[0]].ranges == 1


def test_repairs_come_to_an_end(made: Round) -> None:
    broadcast = made.broadcast()
    (name, *others) = [n for n, s in zip(made.workers, made.solvers, strict=True) if len(s.own) > 1]
    for other in [worker for worker in made.workers if worker != name]:
        broadcast.drop(other)
    datagrams(broadcast.next_range())
    for repairs in range(MAX_REPAIRS):
        broadcast.take_report(name, 0, bytes([0, 0, 0, 1]), 5)
        assert broadcast.take_unrepairable(0) == [], repairs
        assert len(datagrams(broadcast.repair(0))) == 1
    broadcast.take_report(name, 0, bytes([0, 0, 0, 1]), 5)
    assert broadcast.take_unrepairable(0) == [name]
    assert others


def test_a_listener_that_asks_for_too_much_gets_the_range_over_tcp(made: Round) -> None:
    broadcast = made.broadcast()
    k, name = next((k, n) for k, n in enumerate(made.workers) if len(made.solvers[k].own) > 1)
    for other in set(made.workers) - {name}:
        broadcast.drop(other)
    need, repaired = len(made.solvers[k].own), 0
    for index in range(made.layout.ranges):
        first, stop = made.layout.pieces_of(index)
        datagrams(broadcast.next_range())
        while True:
            broadcast.take_report(name, index, bytes([need - 1] * (stop - first)), 0)
            if broadcast.take_unrepairable(index):
                break
            repaired += len(datagrams(broadcast.repair(index)))
    assert repaired <= need * made.layout.pieces
    assert broadcast.settled


def test_a_listener_that_lacks_nothing_cannot_claim_losses(made: Round) -> None:
    """A listener cannot slow the others down: losses count only as far as lacking rows prove them."""
    broadcast = made.broadcast()
    k = max(range(len(made.workers)), key=lambda k: len(made.solvers[k].own))
    sent, name = len(datagrams(broadcast.next_range())), made.workers[k]
    broadcast.take_report(name, 0, b"", 0)
    first, stop = made.layout.pieces_of(0)
    assert broadcast.receptions[name].lost == sent - len(made.solvers[k].own) * (stop - first)


def test_a_listener_that_is_dropped_is_not_waited_for(made: Round) -> None:
    broadcast = made.broadcast()
    for _ in made.rows:
        datagrams(broadcast.next_range())
    assert not broadcast.settled
    for name in made.workers:
        broadcast.drop(name)
    assert broadcast.listeners == ()
    assert [broadcast.settled] == [True]
    assert broadcast.take_report(made.workers[0], 0, b"", 0) is False


@pytest.mark.parametrize("lacks", [b"\0\0\0\0", b"\1", b"\xff\0\0\0"], ids=["nothing", "short", "too much"])
def test_wrong_answers_are_refused(made: Round, lacks: bytes) -> None:
    broadcast = made.broadcast()
    datagrams(broadcast.next_range())
    with pytest.raises(RemoteProtocolError, match="cannot lack so much of range 0"):
        broadcast.take_report(made.workers[0], 0, lacks, 0)


def test_a_loss_report_that_was_not_asked_for_is_refused(made: Round) -> None:
    broadcast = made.broadcast()
    for index in (0, -1, 99):
        with pytest.raises(RemoteProtocolError, match="was not asked"):
            broadcast.take_report(made.workers[0], index, b"", 0)
    datagrams(broadcast.next_range())
    broadcast.take_report(made.workers[0], 0, b"", 0)
    with pytest.raises(RemoteProtocolError, match="was not asked"):
        broadcast.take_report(made.workers[0], 0, b"", 0)


def test_lost_datagrams_are_counted(made: Round) -> None:
    broadcast = made.broadcast()
    sent = len(datagrams(broadcast.next_range()))
    broadcast.take_report(made.workers[0], 0, b"", sent - 3)
    reception = broadcast.receptions[made.workers[0]]
    assert (reception.sent, reception.lost, reception.lacked) == (sent, 3, 0)


def test_blocks_are_of_datagrams_of_one_size() -> None:
    made = Round(HETEROGENEOUS, length=300_000, range_bytes=100_000, piece_bytes=1444)
    broadcast = made.broadcast()
    blocks = [(len(block.datagrams), block.size, block.count) for block in broadcast.next_range()]
    assert all(size == 1444 + OVERHEAD and length <= BLOCK_BYTES for length, size, _ in blocks)
    assert {-(-length // size) for length, size, count in blocks} == {c for _, _, c in blocks}
    assert broadcast.sent(0) == sum(count for _, _, count in blocks)


def test_no_header_is_used_twice(made: Round) -> None:
    """Headers are nonces."""
    chance = random.Random(9)
    broadcast, ends = made.broadcast(), [made.reassembly(k) for k in range(len(made.workers))]
    sent: list[bytes] = []
    for index in range(made.layout.ranges):
        for blocks in (broadcast.next_range(2), *(broadcast.repair(index) for _ in range(3))):
            part = datagrams(blocks)
            sent += part
            hear(made, part, ends, 0.6, chance)
            answer_all(made, broadcast, index, ends)
            if not broadcast.lacking(index):
                break
    headers = [datagram[:12] for datagram in sent]
    assert len(set(headers)) == len(headers) > made.layout.pieces * broadcast.count
