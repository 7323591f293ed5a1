from fractions import Fraction
from itertools import combinations, product
from operator import mul

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.linear_oracle import central_demands, fractional_minimum, integer_minimum, met

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import stragglers
from asyncdmtl.plan.rates.stragglers import SilentRates, fewest_packets, responder_sets, silent_rates

PRIME = 2_147_483_629


def placement_of(holders: list[set[int]], workers: int) -> Placement:
    stored = {f"w{k}": [f"p{n}" for n, H in enumerate(holders) if k in H] for k in range(workers)}
    return Placement(stored, [f"p{n}" for n in range(len(holders))])


@st.composite
def placements_and_silent(draw: st.DrawFn) -> tuple[Placement, int]:
    workers = draw(st.integers(1, 4))
    silent = draw(st.integers(0, workers - 1))
    holder_sets = st.sets(st.integers(0, workers - 1), min_size=silent + 1)
    holders = draw(st.lists(holder_sets, min_size=1, max_size=5))
    return placement_of(holders, workers), silent


@settings(max_examples=60, deadline=None)
@given(placements_and_silent(), st.integers(1, 2))
@example((placement_of([{0}], 1), 0), 1)
@example((placement_of([{0, 1, 2}] * 4, 3), 2), 2)
@example((Placement.cyclic(4, 4, 2), 1), 2)
def test_rates_are_the_smallest_that_decode(wish: tuple[Placement, int], subpackets: int) -> None:
    placement, silent = wish
    workers = len(placement.workers)
    demands = central_demands(placement.holders, workers, silent)
    rates = silent_rates(placement, silent, subpackets)
    assert met(rates.rates, demands)
    assert (
        rates.load == sum(rates.rates) == Fraction(integer_minimum(workers, demands, subpackets), subpackets)
    )
    assert rates.packet_bound == rates.load
    assert rates.bound == fractional_minimum(workers, demands)
    assert all((rate * subpackets).denominator == 1 for rate in rates.rates)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sets(st.integers(0, 2), min_size=2), min_size=1, max_size=3), st.data())
def test_rates_with_costs_cost_the_least(holders: list[set[int]], data: st.DataObject) -> None:
    placement = placement_of([*holders, {0, 1, 2}], 3)
    costs = [Fraction(data.draw(st.integers(1, 9)), 2) for _ in range(3)]
    demands = central_demands(placement.holders, 3, 1)
    found, few = silent_rates(placement, 1, 1, None, costs), fewest_packets(placement, 1, 0, None, costs)
    possible = [rates for rates in product(range(5), repeat=3) if met(rates, demands)]
    least = min(sum(map(mul, costs, rates)) for rates in possible)
    assert found.value == found.packet_bound == least >= found.bound
    assert few.value == few.bound == found.bound
    assert met(few.rates, demands)


@settings(max_examples=12, deadline=None)
@given(placements_and_silent(), st.integers(1, 2))
@example((Placement.cyclic(4, 4, 3), 1), 2)
def test_rates_of_a_relay_are_the_smallest_with_which_every_worker_decodes(
    wish: tuple[Placement, int], subpackets: int
) -> None:
    placement, silent = wish
    workers = len(placement.workers)
    demands: dict[frozenset[int], int] = {}
    for stored in placement.stored:
        lacked = [H for n, H in enumerate(placement.holders) if n not in stored]
        for S, demand in central_demands(lacked, workers, silent).items():
            demands[S] = max(demand, demands.get(S, 0))
    rates = silent_rates(placement, silent, subpackets, range(workers))
    assert met(rates.rates, demands)
    assert rates.load == Fraction(integer_minimum(workers, demands, subpackets), subpackets)
    assert rates.bound == fractional_minimum(workers, demands)
    assert silent_rates(placement, silent, subpackets, range(1)).bound <= rates.bound


def test_rates_of_a_relay_are_the_same_by_listed_cuts_and_by_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = Placement.cyclic(5, 7, 3)
    listed = silent_rates(placement, 1, 2, range(5))
    monkeypatch.setattr(stragglers, "MOST_LISTED", 0)
    found = silent_rates(placement, 1, 2, range(5))
    assert (found.load, found.bound) == (listed.load, listed.bound)


def where_rows_may_be_non_zero(placement: Placement, rates: SilentRates) -> NDArray[np.bool_]:
    """The support (Σ R_k·P, N·P) of uplink matrices: rows by worker, columns by partition."""
    P = rates.subpackets
    stored = np.zeros((len(placement.workers), len(placement.partitions)), dtype=np.bool_)
    for k, M in enumerate(placement.stored):
        stored[k, list(M)] = True
    counts = [int(rate * P) for rate in rates.rates]
    return np.asarray(np.repeat(np.repeat(stored, P, axis=1), counts, axis=0))


@settings(max_examples=30, deadline=None)
@given(placements_and_silent(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_generic_rows_on_the_support_decode_from_all_responders(
    wish: tuple[Placement, int], subpackets: int, seed: int
) -> None:
    placement, silent = wish
    rates = silent_rates(placement, silent, subpackets)
    support = where_rows_may_be_non_zero(placement, rates)
    owner = np.repeat(np.arange(len(rates.rates)), [int(rate * subpackets) for rate in rates.rates])
    unknowns = len(placement.partitions) * subpackets
    assert support.shape == (len(owner), unknowns)
    for row, k in zip(support, owner, strict=True):
        assert set(np.flatnonzero(row) // subpackets) == set(placement.stored[k])
    generic = np.random.default_rng(seed).integers(1, PRIME, support.shape).astype(object) * support
    for A in responder_sets(len(rates.rates), silent):
        assert rank_modulo(generic[np.isin(owner, A)].tolist()) == unknowns


def rank_modulo(rows: list[list[int]]) -> int:
    rank = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][column] % PRIME), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, PRIME)
        for i in range(rank + 1, len(rows)):
            factor = rows[i][column] * inverse % PRIME
            rows[i] = [(x - factor * y) % PRIME for x, y in zip(rows[i], rows[rank], strict=True)]
        rank += 1
    return rank


def test_nobody_silent_costs_nothing() -> None:
    rates = silent_rates(Placement.cyclic(5, 13, 2), 0)
    assert rates.load == rates.bound == 13


def test_equal_rates_of_a_cyclic_placement() -> None:
    # The load is K/(K − s) of the updates, since any K − s workers with equal rates must send all of them.
    rates = silent_rates(Placement.cyclic(20, 200, 4), 2, subpackets=9)
    assert rates.bound == rates.load == Fraction(200 * 20, 18)


def test_partitions_with_too_few_holders_are_named() -> None:
    placement = Placement({"a": ["x", "y", "z"], "b": ["y", "z"], "c": ["z"]})
    with pytest.raises(PlacementError, match=r"store each partition \(x, y would be lost\), got 2$"):
        silent_rates(placement, 2)
    with pytest.raises(PlacementError, match=r"\(x would be lost\), got 1$"):
        silent_rates(placement, 1)


@pytest.mark.parametrize("silent", [-1, 3, True, 1.0])
def test_silent_must_leave_someone(silent: int) -> None:
    with pytest.raises(UsageError, match="whole number from 0 to 2"):
        silent_rates(Placement.cyclic(3, 3, 3), silent)


def test_bad_packets_and_too_many_responder_sets() -> None:
    with pytest.raises(UsageError, match="subpackets"):
        silent_rates(Placement.cyclic(3, 3, 2), 1, 0)
    with pytest.raises(UsageError, match="sets of responders"):
        silent_rates(Placement.cyclic(40, 40, 20), 10)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5))
def test_responder_sets(workers: int, silent: int) -> None:
    assume(silent < workers)
    assert list(responder_sets(workers, silent)) == list(combinations(range(workers), workers - silent))
