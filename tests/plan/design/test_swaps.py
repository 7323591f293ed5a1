from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.plan.design.swaps import Change, Stores, apply, move, replacement, swap, undo

Propose = Callable[[Stores, Sequence[Sequence[int]], random.Random], list[Change]]

PAIRS = [{0, 1}, {0, 1}, {2, 3}, {2, 3}]


def held(stored: Stores, blocks: Sequence[Sequence[int]]) -> int:
    return sum(len(set().union(*(stored[k] for k in block))) for block in blocks)


@st.composite
def stores_and_blocks(draw: st.DrawFn) -> tuple[Stores, list[list[int]]]:
    """Any stores that hold every partition, and disjoint blocks that need not hold every worker."""
    K, N = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    stored = [draw(st.sets(st.integers(0, N - 1))) for _ in range(K)]
    stored[0] |= set(range(N)).difference(*stored)
    labels = [draw(st.integers(-1, 2)) for _ in range(K)]
    blocks = [[k for k in range(K) if labels[k] == i] for i in range(3)]
    return stored, [block for block in blocks if block]


@given(stores_and_blocks(), st.sampled_from([swap, replacement]), st.integers(0, 9))
def test_blocks_gain_and_sizes_stay(
    given_: tuple[Stores, list[list[int]]], propose: Propose, seed: int
) -> None:
    stored, blocks = given_
    before = [set(store) for store in stored]
    changes = propose(stored, blocks, random.Random(seed))
    assert stored == before
    apply(stored, changes)
    if changes:
        assert held(stored, blocks) > held(before, blocks)
        assert set().union(*stored) == set().union(*before)
    assert [len(store) for store in stored] == [len(store) for store in before]
    if propose is swap:
        assert Counter(n for store in stored for n in store) == Counter(n for store in before for n in store)
    undo(stored, changes)
    assert stored == before


@pytest.mark.parametrize("seed", range(5))
def test_a_swap_between_twins(seed: int) -> None:
    """Two pairs of equal stores share nothing; any swap between the pairs connects them."""
    stored = [set(store) for store in PAIRS]
    (k, n, x), back = swap(stored, [[0, 1], [2, 3]], random.Random(seed))
    assert {k // 2, back[0] // 2} == {0, 1}
    assert (back[1], back[2]) == (x, n)


def test_nothing_helps_blocks_that_hold_everything() -> None:
    rng = random.Random(0)
    assert swap([{0, 1}, {0, 1}], [[0], [1]], rng) == []
    assert replacement([{0, 1}, {0, 1}], [[0], [1]], rng) == []
    # A block of everyone cannot gain, and the last copy of a partition is never dropped.
    assert swap([{0}, {1}], [[0, 1]], rng) == []
    assert replacement([{0}, {1}], [[0], [1]], rng) == []


def test_a_replacement_drops_what_its_block_holds_twice() -> None:
    stored = [{0, 1}, {0}, {2}]
    changes = replacement(stored, [[0, 1], [2]], random.Random(0))
    assert len(changes) == 1
    assert changes[0] in [(0, 0, 2), (1, 0, 2)]


def test_a_move_changes_one_copy_and_respects_the_room() -> None:
    rng = random.Random(0)
    stored: Stores = [{0, 1, 2}, {0}, {1, 2}]
    for _ in range(20):
        moved = move(stored, [3, 2, 2], rng)
        assert moved is not None
        assert [len(store) for store in moved] in ([2, 2, 2], [3, 2, 1])
        assert sorted(n for store in moved for n in store) == [0, 0, 1, 1, 2, 2]
    assert stored == [{0, 1, 2}, {0}, {1, 2}]
    assert move([{0}, {1}], [1, 1], rng) is None
