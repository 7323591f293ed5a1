from __future__ import annotations

from collections import Counter

import pytest

from asyncdmtl.exchange import blocks
from asyncdmtl.exchange.blocks import (
    ASKED_OF_A_PEER,
    BLOCK_SECONDS,
    FEWEST_BLOCKS,
    FEWEST_BYTES,
    KEPT_SHARE,
    LATE_FACTOR,
    LATE_SECONDS,
    MOST_ASKED_OF_A_SHARE,
    UNKNOWN_SECONDS,
    Block,
    BlockRequests,
)


def take_all(requests: BlockRequests, speeds: dict[str, float]) -> Counter[str]:
    """Let every peer give blocks at its speed, two at a time; return the blocks that each gave."""
    free = {peer: [0.0, 0.0] for peer in speeds}
    on_the_way: list[tuple[float, str, Block]] = []
    given: Counter[str] = Counter()
    now = 0.0
    while not requests.complete:
        if requests.nothing_to_ask(now):
            assert [requests.next(peer, now) for peer in free] == [None] * len(free)
        for peer, slots in free.items():
            while slots and (block := requests.next(peer, now)) is not None:
                slots.pop()
                on_the_way.append((now + 1 / speeds[peer], peer, block))
        on_the_way.sort()
        now, peer, block = on_the_way.pop(0)
        free[peer].append(now)
        if requests.open(block):
            requests.came(block, peer, now)
            given[peer] += 1
    return given


def test_every_byte_is_asked_for_once() -> None:
    requests = BlockRequests({3: 100_000, 5: 70_000}, {3: "a", 5: "ab"})
    asked = []
    while (block := requests.next("a", 0.0)) is not None:
        asked.append(block)
        requests.came(block, "a", 0.1)
    assert requests.complete
    for vector, size in ((3, 100_000), (5, 70_000)):
        parts = sorted((b.start, b.stop) for b in asked if b.vector == vector)
        assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
        assert parts[-1][1] == size


def test_vectors_that_few_hold_are_asked_for_first() -> None:
    requests = BlockRequests({1: 10, 2: 10, 3: 10}, {1: "abc", 2: "a", 3: "ab"})
    assert [requests.next("a", 0.0).vector for _ in range(3)] == [2, 3, 1]  # type: ignore[union-attr]
    assert requests.next("c", 0.0) is None


def test_quick_peers_give_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "FEWEST_BYTES", 10)
    given = take_all(
        BlockRequests({0: 10_000, 1: 10_000, 2: 10_000}, dict.fromkeys(range(3), "ab")), {"a": 10.0, "b": 1.0}
    )
    assert sum(given.values()) == 96
    assert 7 * given["b"] < given["a"]


def test_a_late_block_is_asked_of_another_peer() -> None:
    requests = BlockRequests({0: 10, 1: 10}, {0: "ab", 1: "ab"})
    first, second = requests.next("a", 0.0), requests.next("b", 0.0)
    assert first is not None
    assert second is not None
    assert requests.patience == UNKNOWN_SECONDS
    requests.came(second, "b", 0.02)
    assert requests.patience == max(LATE_SECONDS, LATE_FACTOR * 0.02)
    assert requests.next("b", 0.04) is None
    assert requests.next("a", 1.0) is None
    assert requests.next("b", 1.0) == first
    assert requests.next("b", 9.0) is None
    requests.came(first, "b", 1.1)
    assert requests.complete
    assert not requests.open(first)


def test_there_is_nothing_to_ask_until_a_block_is_late_or_its_peer_lost() -> None:
    requests = BlockRequests({0: 10, 1: 10}, {0: "ab", 1: "ab"})
    assert not requests.nothing_to_ask(0.0)
    assert requests.next("a", 0.0) is not None
    assert requests.next("b", 0.0) is not None
    assert requests.nothing_to_ask(0.5 * UNKNOWN_SECONDS)
    assert requests.seconds_to_late(0.25 * UNKNOWN_SECONDS) == 0.75 * UNKNOWN_SECONDS
    assert requests.seconds_to_late(2 * UNKNOWN_SECONDS) == LATE_SECONDS
    assert not requests.nothing_to_ask(UNKNOWN_SECONDS)
    requests.lost("a")
    assert not requests.nothing_to_ask(0.0)


def test_blocks_of_a_lost_peer_are_asked_of_others() -> None:
    requests = BlockRequests({0: 10, 1: 10}, {0: "ab", 1: "a"})
    assert {requests.next("a", 0.0), requests.next("a", 0.0)} == {Block(0, 0, 10), Block(1, 0, 10)}
    requests.lost("a")
    assert requests.without_holder() == [1]
    assert requests.next("a", 0.1) is None
    assert requests.next("b", 0.1) == Block(0, 0, 10)
    assert not requests.complete


def test_a_block_that_two_were_asked_for_outlives_one_of_them() -> None:
    requests = BlockRequests({0: 10}, {0: "ab"})
    block = requests.next("a", 0.0)
    assert requests.next("b", 2.0) == block
    requests.lost("b")
    assert requests.next("a", 9.0) is None
    assert requests.without_holder() == []
    requests.lost("a")
    assert requests.without_holder() == [0]


def test_nothing_is_lacking() -> None:
    requests = BlockRequests({}, {})
    assert requests.complete
    assert requests.without_holder() == []


def test_peers_that_give_nothing_for_long_are_named_and_those_that_are_too_slow() -> None:
    requests = BlockRequests({0: 100, 1: 100}, {0: ["a"], 1: ["b"]}, now=10.0)
    assert requests.next("a", 10.0) is not None
    block = requests.next("b", 10.0)
    assert block is not None
    assert requests.too_late(11.0, 4.0) == {}
    requests.came(block, "b", 11.0)
    assert requests.too_late(11.9, 4.0) == {}
    assert requests.too_late(12.1, 4.0) == {"a": pytest.approx(1.1)}
    slow = BlockRequests({0: 300_000}, {0: ["a"]}, now=10.0)
    for second in range(1, 4):
        block = slow.next("a", 10.0)
        assert block is not None
        slow.came(block, "a", 10.0 + second)
    slow.next("a", 13.0)
    assert slow.too_late(13.5, 8.0) == {}
    assert slow.too_late(14.5, 8.0) == {"a": 4.5}


def test_blocks_that_come_quickly_are_longer_in_the_next_round() -> None:
    def widths(requests: BlockRequests) -> set[int]:
        blocks = iter(lambda: requests.next("a", 0.0), None)
        return {block.stop - block.start for block in blocks if block is not None}

    sizes, holders = {0: 4_000_000}, {0: "a"}
    first = BlockRequests(sizes, holders)
    block = first.next("a", 0.0)
    assert block == Block(0, 0, 125_000)
    first.came(block, "a", 0.001)
    assert first.speed == 125e6
    longer = BlockRequests(sizes, holders, first)
    assert longer.speed == KEPT_SHARE * first.speed
    assert widths(longer) == {4_000_000 // FEWEST_BLOCKS}
    # A block that is eight times as long may take eight times as long before it is late.
    assert longer.seconds == pytest.approx(0.008)
    slow = BlockRequests(sizes, holders)
    assert slow.next("a", 0.0) == block
    slow.came(block, "a", 0.5)
    assert widths(BlockRequests(sizes, holders, slow)) == {125_000}
    # A plan under which nothing is lacking keeps what is known.
    assert BlockRequests({}, {}, first).seconds == first.seconds


def test_a_peer_that_becomes_slow_costs_its_share_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "FEWEST_BYTES", 1_000)
    sizes, holders = dict.fromkeys(range(3), 32_000), dict.fromkeys(range(3), "abc")
    requests = BlockRequests(sizes, holders)
    take_all(requests, {"a": 10.0, "b": 10.0, "c": 0.5})
    # Blocks of `c`, each later than four of the others, are asked of others.
    assert requests.patience == pytest.approx(LATE_FACTOR * 0.1)
    requests = BlockRequests(sizes, holders, requests)
    given = take_all(requests, {"a": 10.0, "b": 10.0, "c": 0.5})
    assert given["a"] + given["b"] + given["c"] == 96
    assert given["c"] <= 3
    for _ in range(60):
        requests = BlockRequests({0: 2_000}, {0: "ab"}, requests)
        take_all(requests, {"a": 10.0, "b": 10.0})
    again = BlockRequests(sizes, holders, requests)
    assert take_all(again, dict.fromkeys("abc", 10.0))["c"] > 5


def test_a_slow_peer_gives_what_nobody_else_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "FEWEST_BYTES", 1_000)
    sizes, holders = {0: 32_000, 1: 32_000}, {0: "ab", 1: "c"}
    requests = BlockRequests(sizes, holders)
    for _ in range(3):
        given = take_all(requests, {"a": 10.0, "b": 10.0, "c": 0.5})
        assert given["c"] == 32
        requests = BlockRequests(sizes, holders, requests)


def test_a_slow_peer_is_asked_once_a_quick_one_has_fallen_silent() -> None:
    before = BlockRequests({0: 10}, {0: "ab"})
    for peer, seconds in (("a", 0.1), ("b", 1.0)):
        before.took(peer, seconds)
    requests = BlockRequests({0: 200_000}, {0: "ab"}, before)
    assert [requests.next("a", 0.0), requests.next("a", 0.0)] != [None, None]
    assert requests.next("b", 0.1) is None
    assert requests.next("b", 0.1 + requests.patience) is not None


def test_a_busy_peer_does_not_make_blocks_short() -> None:
    sizes, holders = dict.fromkeys(range(4), 4_000_000), dict.fromkeys(range(4), "ab")
    requests = BlockRequests(sizes, holders)
    # Every block waits for half a second, but 32 MB come in each second.
    while (block := requests.next("a", 0.0)) is not None:
        requests.came(block, "a", 0.5)
    assert requests.speed == 32e6
    requests = BlockRequests(sizes, holders, requests)
    assert requests.width == BLOCK_SECONDS * 32e6


def test_short_vectors_are_asked_of_the_peers_whose_share_they_are() -> None:
    holders = dict.fromkeys(range(3), "ab")
    requests = BlockRequests(dict.fromkeys(range(3), 10), holders, shares={0: "b", 1: "a", 2: "b"})
    assert requests.asked_of("a") == requests.asked_of("b") == MOST_ASKED_OF_A_SHARE
    assert requests.next("a", 0.0) == Block(1, 0, 10)
    assert requests.next("a", 0.0) is None
    assert [requests.next("b", 0.0) for _ in range(3)] == [Block(0, 0, 10), Block(2, 0, 10), None]
    # A share that is late is asked of another peer, too.
    assert requests.next("a", UNKNOWN_SECONDS) == Block(0, 0, 10)


def test_the_share_of_a_peer_that_is_slow_or_lost_is_asked_of_others() -> None:
    before = BlockRequests({0: 10}, {0: "ab"})
    before.took("a", 0.01)
    before.took("b", 1.0)
    for requests in (
        BlockRequests({0: 10}, {0: "ab"}, before, shares={0: "b"}),
        BlockRequests({0: 10}, {0: "ab"}, shares={0: "b"}),
    ):
        if not requests.seconds:
            assert requests.next("a", 0.0) is None
            requests.lost("b")
        assert requests.next("a", 0.0) == Block(0, 0, 10)


def test_long_vectors_have_no_shares() -> None:
    requests = BlockRequests({0: FEWEST_BYTES + 1}, {0: "ab"}, shares={0: "b"})
    assert requests.asked_of("b") == ASKED_OF_A_PEER
    assert requests.next("a", 0.0) is not None


def test_the_average_of_an_unasked_quick_peer_stays() -> None:
    requests = BlockRequests({0: 10}, {0: "ab"})
    requests.took("a", 0.01)
    requests.took("b", 0.02)
    for _ in range(50):
        requests = BlockRequests({0: 10}, {0: "ab"}, requests)
    assert requests.remembered() == {"a": 0.01, "b": 0.02}
