from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import placement_of, small_placements

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cuts import MergedPartitions, PacketAssignment, serve


def covered(placement: Placement, workers: tuple[int, ...]) -> int:
    """Partitions that these workers store, without those that all workers store."""
    K = len(placement.workers)
    return sum(len(H) < K and not set(H).isdisjoint(workers) for H in placement.holders)


def nonempty_sets(K: int) -> list[tuple[int, ...]]:
    return [S for size in range(1, K + 1) for S in combinations(range(K), size)]


@given(small_placements())
def test_merged_partitions_keep_every_union(placement: Placement) -> None:
    K = len(placement.workers)
    merged = MergedPartitions.of(placement)
    assert len(set(merged.holders)) == len(merged.holders)
    assert merged.total == covered(placement, tuple(range(K)))
    for S in nonempty_sets(K):
        assert merged.covered(S) == covered(placement, S)
    for n, holders in enumerate(merged.holders):
        assert all((n in merged.stored[k]) == (k in holders) for k in range(K))


def test_packets_that_later_workers_do_not_need_come_first() -> None:
    merged = MergedPartitions.of(placement_of([[0, 1], [0], [0, 2]], 3))
    assert [merged.holders[n] for n in merged.stored[0]] == [(0,), (0, 1), (0, 2)]
    backwards = MergedPartitions.of(placement_of([[0, 1], [0], [0, 2]], 3), order=[2, 1, 0])
    assert {backwards.holders[n] for n in backwards.stored[0]} == {(0,), (0, 1), (0, 2)}


@settings(max_examples=100, deadline=None)
@given(small_placements(most_workers=5), st.integers(1, 3), st.data())
def test_workers_draw_as_much_as_halls_theorem_allows(
    placement: Placement, packets: int, data: st.DataObject
) -> None:
    K = len(placement.workers)
    merged = MergedPartitions.of(placement)
    assignment, got = PacketAssignment(merged, packets), [0] * K
    for k in data.draw(st.permutations(range(K))):
        wanted = data.draw(st.integers(0, packets * merged.total + 1))
        room = min(packets * merged.covered(S) - sum(got[j] for j in S) for S in nonempty_sets(K) if k in S)
        drawn = assignment.draw(k, wanted)
        assert drawn == min(wanted, room)
        got[k] += drawn
        if drawn < wanted:
            tight = assignment.dependents([k])
            assert sum(got[j] for j in tight) == packets * merged.covered(tight)
        assert assignment.free == packets * merged.total - sum(got)


def test_released_packets_are_free_for_others() -> None:
    assignment = PacketAssignment(MergedPartitions.of(placement_of([[0, 1], [0, 1], [2]], 3)), 2)
    assert assignment.draw(0, 9) == 4
    assert assignment.draw(1, 1) == 0
    assignment.release(0, 3)
    assert assignment.draw(1, 9) == 3
    assert assignment.free == 2


def test_a_long_path_of_swaps_is_found() -> None:
    """Worker 0 stores one partition, which its neighbour has; all other workers must swap."""
    K = 6
    assignment = PacketAssignment(
        MergedPartitions.of(placement_of([[k, k + 1] for k in range(K - 1)] + [[K - 1], [K]], K + 1)), 1
    )
    for k in range(1, K):
        assert assignment.draw(k, 1) == 1
    assert assignment.draw(0, 1) == 1


@settings(max_examples=60, deadline=None)
@given(small_placements(most_workers=5), st.integers(1, 2), st.data())
def test_greedy_rates_have_the_largest_sum(placement: Placement, packets: int, data: st.DataObject) -> None:
    """The blocks prove it: their constraints hold with equality, and cover all workers."""
    K = len(placement.workers)
    merged = MergedPartitions.of(placement)
    slack = data.draw(st.integers(0, packets * merged.total))
    served = serve(merged, packets, slack, data.draw(st.permutations(range(K))))
    for S in nonempty_sets(K):
        assert sum(served.rates[k] for k in S) <= packets * merged.covered(S) - slack
    last = served.chain[-1]
    assert sorted(k for block in last for k in block) == list(range(K))
    for block in last:
        assert sum(served.rates[k] for k in block) == packets * merged.covered(block) - slack


@pytest.mark.parametrize("seed", range(20))
def test_limits_hold(seed: int) -> None:
    rng = random.Random(seed)
    placement = Placement.cyclic(5, 8, rng.randint(1, 4))
    merged = MergedPartitions.of(placement)
    limits = [rng.randint(0, 4) for _ in range(5)]
    served = serve(merged, 1, 1, range(5), limits)
    assert all(rate <= limit for rate, limit in zip(served.rates, limits, strict=True))
    bound = min(
        sum(Fraction(merged.covered(S) - 1) for S in [S]) + sum(limits[k] for k in range(5) if k not in S)
        for S in nonempty_sets(5)
    )
    assert sum(served.rates) <= bound


def test_unassigned_partitions_have_too_few_packets_among_their_holders() -> None:
    merged = MergedPartitions.of(Placement({"a": ["x", "y"], "b": ["y", "z"], "c": ["z"]}))
    assignment = PacketAssignment(merged, 1)
    for k, count in enumerate([1, 0, 1]):
        assert assignment.draw(k, count) == count
    assert assignment.free == 1
    short = assignment.unassigned()
    assert {merged.holders[n] for n in short} == {(0,), (0, 1)}
