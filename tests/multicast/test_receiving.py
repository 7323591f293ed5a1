from __future__ import annotations

import random

import numpy as np
import pytest
from support.broadcasts import Round, datagrams
from support.placements import HETEROGENEOUS, HOMOGENEOUS

from asyncdmtl.errors import UsageError
from asyncdmtl.multicast.datagrams import OVERHEAD
from asyncdmtl.multicast.receiving import DatagramCounts, Reassembly
from asyncdmtl.plan.placement import Placement


def give(reassembly: Reassembly, *sent: bytes) -> list[int]:
    """The ranges that these datagrams complete."""
    taken = [reassembly.take(memoryview(datagram)) for datagram in sent]
    return [index for index in taken if index is not None]


@pytest.fixture
def made() -> Round:
    return Round(HETEROGENEOUS, length=400, range_bytes=100, piece_bytes=30)


def whole(made: Round, spare: int = 0) -> list[bytes]:
    """All datagrams of a round."""
    broadcast = made.broadcast()
    return [datagram for _ in made.rows for datagram in datagrams(broadcast.next_range(spare))]


def test_rows_come_together(made: Round) -> None:
    for k in range(len(made.workers)):
        counts = DatagramCounts()
        reassembly = made.reassembly(k, counts)
        completed = give(reassembly, *whole(made))
        assert completed == list(range(made.layout.ranges))
        made.check(k, reassembly)
        assert counts.taken == len(made.solvers[k].own) * made.layout.pieces
        assert counts.taken + counts.surplus == len(whole(made))


def test_order_and_repetition_do_not_matter(made: Round) -> None:
    chance = random.Random(3)
    for k in range(len(made.workers)):
        sent = whole(made) * 2
        chance.shuffle(sent)
        reassembly = made.reassembly(k)
        assert sorted(give(reassembly, *sent)) == list(range(made.layout.ranges))
        made.check(k, reassembly)


@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["equal", "unequal"])
def test_any_rows_make_up_for_lost_ones(placement: Placement) -> None:
    made = Round(placement, length=400, range_bytes=100, piece_bytes=30)
    chance = random.Random(4)
    for k in range(len(made.workers)):
        counts = DatagramCounts()
        reassembly = made.reassembly(k, counts)
        sent = [datagram for datagram in whole(made, spare=40) if chance.random() < 0.6]
        chance.shuffle(sent)
        give(reassembly, *sent)
        made.check(k, reassembly)
        assert counts.repaired


def test_a_row_that_comes_late_finds_another_place(made: Round) -> None:
    k = max(range(len(made.workers)), key=lambda worker: len(made.solvers[worker].own))
    sent = datagrams(made.broadcast().next_range(2))
    reassembly = made.reassembly(k)
    # The second spare row comes first and takes the place of the first own row, which comes last.
    first, *others = (sent[at : at + 4] for at in range(0, len(sent), 4))
    assert give(reassembly, *others[-1]) == []
    assert give(reassembly, *(d for row in others[: len(made.solvers[k].own) - 2] for d in row)) == []
    assert give(reassembly, *first) == [0]
    handed = reassembly.hand_out(0, made.known(k, 0))
    assert np.array_equal(handed, made.own(k, 0))


def test_lacking_rows_are_reported_for_each_piece(made: Round) -> None:
    reassembly = made.reassembly(0)
    need = len(made.solvers[0].own)
    assert reassembly.lacks(0) == bytes([need] * 4)
    sent = datagrams(made.broadcast().next_range())
    give(reassembly, sent[0], sent[4], sent[5])
    assert reassembly.lacks(0) == bytes([need - 2, need - 1, need, need])
    assert reassembly.seen(0) == 3
    give(reassembly, *sent)
    assert reassembly.lacks(0) == b""


def test_strange_datagrams_are_counted_and_dropped(made: Round) -> None:
    counts = DatagramCounts()
    reassembly = made.reassembly(0, counts)
    sent = datagrams(made.broadcast().next_range())
    forged = bytearray(sent[0])
    forged[-1] ^= 1
    nowhere = sent[0][:8] + made.layout.pieces.to_bytes(4, "big") + sent[0][12:]
    short = sent[0][:-1]
    empty = sent[0][:OVERHEAD]
    assert give(reassembly, bytes(forged), nowhere, short, empty, sent[0][:6]) == []
    assert (counts.forged, counts.malformed, counts.taken) == (1, 4, 0)
    give(reassembly, sent[0], sent[0])
    assert (counts.taken, counts.surplus) == (1, 1)


def test_a_forged_datagram_spoils_nothing(made: Round) -> None:
    counts = DatagramCounts()
    reassembly = made.reassembly(0, counts)
    for datagram in whole(made):
        forged = bytearray(datagram)
        forged[20] ^= 255
        give(reassembly, bytes(forged), datagram, bytes(forged))
    made.check(0, reassembly)
    assert counts.forged
    assert counts.taken + counts.surplus + counts.forged == 3 * len(whole(made))


def test_a_range_may_come_on_the_connection(made: Round) -> None:
    reassembly = made.reassembly(0)
    sent = whole(made)
    give(reassembly, *sent[:3])
    for index in range(made.layout.ranges):
        reassembly.fill(index, made.own(0, index).copy())
    assert give(reassembly, *sent) == []
    made.check(0, reassembly)
    with pytest.raises(UsageError, match="rows must have"):
        made.reassembly(0).fill(0, np.zeros((1, 1), np.uint8))


def test_a_worker_that_stores_everything_needs_nothing() -> None:
    made = Round(Placement({"w0": ["a", "b"], "w1": ["a"], "w2": ["b"]}), 40, 20, 10)
    counts = DatagramCounts()
    reassembly = made.reassembly(0, counts)
    give(reassembly, *whole(made))
    made.check(0, reassembly)
    assert not counts.taken
