from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.oracle import least_uplink_load, set_partitions, shortest_time

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.design.search import Design, design_placement, trade_off
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import downlink_bound, violated_cut
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum


def all_placements(m: Sequence[int], N: int, copies: int | None) -> Iterator[Placement]:
    """Every placement within these capacities. Without given copies, placements with full stores suffice."""
    sizes = [range(0 if copies else min(most, N), min(most, N) + 1) for most in m]
    stores = [[store for size in each for store in combinations(range(N), size)] for each in sizes]
    for stored in product(*stores):
        held = [sum(n in store for store in stored) for n in range(N)]
        if min(held) and (copies is None or set(held) == {copies}):
            yield Placement(
                {f"w{k}": [f"p{n}" for n in store] for k, store in enumerate(stored)},
                [f"p{n}" for n in range(N)],
            )


def check(design: Design, m: Sequence[int], N: int, copies: int | None = None) -> None:
    placement = design.placement
    assert len(placement.partitions) == N
    if copies is None:
        assert [len(store) for store in placement.stored] == [min(most, N) for most in m]
    else:
        assert all(len(store) <= most for store, most in zip(placement.stored, m, strict=True))
        assert {len(holders) for holders in placement.holders} == {copies}
    assert sum(design.uplink_rates) == design.uplink_load
    assert violated_cut(placement, design.uplink_rates) is None
    assert design.downlink_load == downlink_bound(placement) >= design.downlink_bound
    assert design.uplink_load >= uplink_optimum(placement).load >= design.uplink_bound
    assert design.gap >= 0


def few_capacities(N: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, N + 1), min_size=1, max_size=3).filter(
        lambda m: sum(min(most, N) for most in m) >= N
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_placement_does_better(data: st.DataObject) -> None:
    N = data.draw(st.integers(1, 4))
    m = data.draw(few_capacities(N))
    design = design_placement(m, N, seed=data.draw(st.integers(0, 3)))
    check(design, m, N)
    least = min(least_uplink_load(placement)[0] for placement in all_placements(m, N, None))
    assert design.uplink_load == least >= design.uplink_bound
    assert design.downlink_load == design.downlink_bound == N - min(*m, N)
    assert design.optimal == (least == design.uplink_bound)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_placement_of_so_many_copies_does_better(data: st.DataObject) -> None:
    N = data.draw(st.integers(1, 3))
    m = data.draw(few_capacities(N))
    copies = data.draw(st.integers(1, sum(min(most, N) for most in m) // N))
    design = design_placement(m, N, copies=copies)
    check(design, m, N, copies)
    placements = list(all_placements(m, N, copies))
    totals = [least_uplink_load(placement)[0] + downlink_bound(placement) for placement in placements]
    assert design.uplink_load + design.downlink_load == min(totals)
    assert design.uplink_bound <= min(least_uplink_load(placement)[0] for placement in placements)
    assert design.downlink_bound == min(map(downlink_bound, placements))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_placement_is_faster_than_the_bounds(data: st.DataObject) -> None:
    N = data.draw(st.integers(1, 3))
    m = data.draw(few_capacities(N))
    copies = data.draw(st.one_of(st.none(), st.integers(1, sum(min(most, N) for most in m) // N)))
    b = data.draw(st.lists(st.integers(1, 9), min_size=len(m), max_size=len(m)))
    design = design_placement(m, N, copies=copies, speeds=b)
    check(design, m, N, copies)
    assert design.times is not None
    assert design.times.uplink == fastest_rates(design.placement, b).time
    assert design.times.downlink == downlink_time(design.placement, b)
    placements = list(all_placements(m, N, copies))
    uplinks = [shortest_time(each, b) if len(m) > 1 else Fraction(0) for each in placements]
    downlinks = [downlink_time(each, b) for each in placements]
    assert design.times.uplink_bound <= min(uplinks) <= design.times.uplink
    assert design.times.downlink_bound == min(downlinks)
    least = min(up + down for up, down in zip(uplinks, downlinks, strict=True))
    if copies is None:
        assert design.times.uplink + design.times.downlink == least
    else:
        assert design.times.uplink + design.times.downlink >= least


def downlink_time(placement: Placement, b: Sequence[int]) -> Fraction:
    N = len(placement.partitions)
    return max(Fraction(N - len(store), speed) for store, speed in zip(placement.stored, b, strict=True))


@given(st.integers(1, 9), st.lists(st.integers(0, 9), min_size=2, max_size=6))
@example(4, [1, 1, 1, 1])
@example(3, [3, 3])
def test_no_certificate_proves_more_from_sizes_alone(N: int, sizes: list[int]) -> None:
    """The two certificates in the module's docstring are the best that exist."""
    sizes = [min(size, N) for size in sizes]
    K, total = len(sizes), sum(sizes)
    if total < N:
        return
    proven = max(
        Fraction(sum(max(0, N - sum(sizes[k] for k in block)) for block in blocks), len(blocks) - 1)
        for blocks in set_partitions(range(K))
        if len(blocks) > 1
    )
    assert proven == N - min(Fraction(total - N, K - 1), Fraction(min(sizes)))


@pytest.mark.parametrize(("K", "N", "copies"), [(5, 20, 3), (6, 6, 3), (2, 2, 1), (20, 200, 4), (7, 7, 7)])
def test_equal_capacities_are_filled_cyclically(K: int, N: int, copies: int) -> None:
    m = N * copies // K
    for design in (design_placement([m] * K, N), design_placement([m + 1] * K, N, copies=copies)):
        assert design.placement == Placement.cyclic(K, N, copies)
        assert design.uplink_load == design.uplink_bound == Fraction(K * (N - m), K - 1)
        assert design.downlink_load == design.downlink_bound == N - m
        assert design.optimal


@pytest.mark.parametrize("workers", [4, 9, 16])
@pytest.mark.parametrize("copies", [1.1, 1.5, 2.5, 4])
def test_random_capacities_meet_the_bound(workers: int, copies: float) -> None:
    rng = random.Random(workers)
    N = 5 * workers
    for _ in range(4):
        weights = [rng.random() + 0.3 for _ in range(workers)]
        m = [min(N, 1 + int(copies * N * weight / sum(weights))) for weight in weights]
        design = design_placement(m, N)
        check(design, m, N)
        assert design.optimal
        held = [len(holders) for holders in design.placement.holders]
        assert max(held) - min(held) <= 1


def test_a_filling_is_improved_until_it_is_connected() -> None:
    """With ten workers and ten extra copies, only a ring of shared partitions meets the bound."""
    design = design_placement([6] * 10, 50)
    assert design.uplink_load == design.uplink_bound == 50 - Fraction(10, 9)


def test_holders_are_uneven_where_that_sends_less() -> None:
    design = design_placement([2, 2, 2, 4], 5)
    assert design.uplink_load == Fraction(10, 3)
    assert design.optimal
    assert {len(holders) for holders in design.placement.holders} == {1, 2, 3}


def test_too_few_copies_to_connect_everyone_save_nothing() -> None:
    design = design_placement([3, 2, 1, 1], 5)
    assert design.uplink_load == design.uplink_bound == 5
    assert design.optimal


def test_a_bound_that_no_placement_meets_is_said_to_be_open() -> None:
    """Of four stores with two of three partitions, two are equal."""
    design = design_placement([2] * 4, 3)
    assert design.uplink_load == Fraction(3, 2) > design.uplink_bound == Fraction(4, 3)
    assert design.gap == Fraction(1, 6)
    assert not design.optimal


def test_slow_workers_are_spared() -> None:
    rng = random.Random(4)
    m, b = [rng.randint(10, 40) for _ in range(8)], [1, 1, 1, 1, 10, 10, 100, 100]
    plain, fast = design_placement(m, 60), design_placement(m, 60, speeds=b)
    assert fast.optimal
    assert fast.times is not None
    assert fast.times.uplink < fastest_rates(plain.placement, b).time


def test_names_and_seeds() -> None:
    capacities = {"north": 9, "south": 7, "small": 2}
    one, same, other = (design_placement(capacities, 9, seed=seed) for seed in (1, 1, 2))
    assert one.placement.workers == tuple(capacities)
    assert one == same
    assert one.placement != other.placement
    assert one.uplink_load == other.uplink_load


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: design_placement([], 3), "capacities must be given for at least one worker"),
        (lambda: design_placement([3], 0), "partitions must be a whole number, at least 1, got 0"),
        (lambda: design_placement({"a": 3, "b": -1}, 3), "capacity of worker 'b' must be .*, got -1"),
        (lambda: design_placement([2.5], 3), "capacity of worker 'w0' must be a whole number"),  # type: ignore[list-item]
        (lambda: design_placement([2, 2], 5), r"each of 5 partitions once, so sum to 5, got \[2, 2\]"),
        (lambda: design_placement([9, 0], 5, copies=2), r"2 copies of 5 partitions.*got \[5, 0\]"),
        (lambda: design_placement([9, 9], 5, copies=3), r"copies must lie between 1 and .*\(2\), got 3"),
        (lambda: design_placement([9, 9], 5, copies=0), "copies must lie between 1"),
        (lambda: trade_off(0, 3), "workers must be a whole number, at least 1, got 0"),
        (lambda: trade_off(3, 0), "partitions must be a whole number, at least 1, got 0"),
        (lambda: trade_off(3, 3, [4]), "copies must lie between 1"),
    ],
)
def test_infeasible_wishes(call: Callable[[], object], complaint: str) -> None:
    with pytest.raises(PlacementError, match=complaint):
        call()


@pytest.mark.parametrize(
    ("speeds", "complaint"),
    [([1], r"as many as workers \(2\)"), ([1, 0], "positive"), ([1, float("nan")], "rational")],
)
def test_bad_speeds(speeds: list[float], complaint: str) -> None:
    with pytest.raises(UsageError, match=f"speeds must be .*{complaint}"):
        design_placement([3, 3], 5, speeds=speeds)  # type: ignore[arg-type]


@pytest.mark.parametrize(("K", "N"), [(1, 4), (2, 2), (5, 20), (6, 18)])
def test_the_trade_off_of_whole_stores(K: int, N: int) -> None:
    rows = trade_off(K, N)
    assert [row.copies for row in rows] == list(range(1, K + 1))
    for c, row in enumerate(rows, 1):
        assert row.storage * K == row.computation == N * c
        assert row.uplink_load == row.uplink_bound == Fraction(N * (K - c), max(1, K - 1))
        assert row.downlink_load == N - row.storage
        assert row.unicast_downlink == N * (K - c)
        assert row.uncoded_uplink == row.uncoded_downlink == N


def test_the_trade_off_of_unequal_stores() -> None:
    first, last = trade_off(3, 7, [1, 2])
    assert (first.storage, first.computation) == (3, 7)
    assert first.uplink_load == 7
    assert first.downlink_load == 5
    assert (last.storage, last.computation) == (5, 14)
    assert last.downlink_load == 3
    assert last.uplink_load == last.uplink_bound == Fraction(7, 2)
