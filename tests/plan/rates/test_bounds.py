from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import EDGES, ex, feasible, placement_of, proper_subsets, set_partitions, small_placements
from support.placements import random_placement

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import (
    certificate_value,
    cost_bound,
    downlink_bound,
    exclusive,
    lacking,
    time_bound,
    violated_cut,
)

CYCLIC = Placement.cyclic(6, 6, 3)


@pytest.mark.parametrize(
    ("placement", "bound"),
    [
        (CYCLIC, 3),
        (placement_of([[0]], 1), 0),
        (placement_of([[0], [0]], 2), 2),
        (placement_of([[0, 1], [0, 1]], 2), 0),
        (placement_of([[0], [1], [1]], 2), 2),
    ],
)
def test_downlink_bound_is_what_the_poorest_worker_lacks(placement: Placement, bound: int) -> None:
    assert downlink_bound(placement) == bound


@given(small_placements())
def test_counts_of_cuts(placement: Placement) -> None:
    K = len(placement.workers)
    for cut in proper_subsets(K):
        rest = [k for k in range(K) if k not in cut]
        assert exclusive(placement, cut) == lacking(placement, rest) == ex(placement, cut)


def test_certificate_value_of_a_cyclic_placement() -> None:
    assert certificate_value(CYCLIC, [[k] for k in range(6)]) == Fraction(18, 5)
    # Each half lacks one partition.
    assert certificate_value(CYCLIC, [[0, 1, 2], [3, 4, 5]]) == 2
    assert certificate_value(CYCLIC, [list(range(6))]) == 0


@pytest.mark.parametrize("blocks", [[], [[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], [[0], [1], [3]]])
def test_certificate_must_be_a_partition(blocks: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="every worker once"):
        certificate_value(Placement.cyclic(3, 3, 1), blocks)


def check_violated_cut(placement: Placement, rates: list[Fraction], subpackets: int) -> None:
    K = len(placement.workers)
    cut = violated_cut(placement, rates, subpackets)
    if cut is None:
        assert feasible(placement, rates, subpackets)
    else:
        assert 0 < len(set(cut)) < K
        assert list(cut) == sorted(cut)
        assert sum(rates[k] for k in cut) < subpackets * ex(placement, cut)


@settings(max_examples=200, deadline=None)
@given(small_placements(), st.data())
def test_violated_cut_is_one_and_none_means_none(placement: Placement, data: st.DataObject) -> None:
    subpackets = data.draw(st.integers(1, 3))
    K = len(placement.workers)
    rate = st.fractions(0, 4, max_denominator=4).map(lambda rate: rate * subpackets)
    check_violated_cut(placement, data.draw(st.lists(rate, min_size=K, max_size=K)), subpackets)


def test_violated_cut_next_to_the_border() -> None:
    """Rates that just suffice, and the same rates with a bit less at one worker."""
    rng = random.Random(3)
    found = {True: 0, False: 0}
    for _ in range(300):
        placement = random_placement(rng)
        K = len(placement.workers)
        rates = [Fraction(rng.randint(0, 6), rng.randint(1, 3)) for _ in range(K)]
        for cut in proper_subsets(K):
            rates[cut[0]] += max(0, ex(placement, cut) - sum(rates[k] for k in cut))
        assert violated_cut(placement, rates) is None
        rates[rng.randrange(K)] -= Fraction(1, 7)
        check_violated_cut(placement, rates, 1)
        found[feasible(placement, rates)] += 1
    assert min(found.values()) > 30


@pytest.mark.parametrize("placement", EDGES, ids=repr)
def test_sending_nothing_is_enough_iff_all_store_all(placement: Placement) -> None:
    nothing = [Fraction(0)] * len(placement.workers)
    check_violated_cut(placement, nothing, 2)
    assert (violated_cut(placement, nothing) is None) == (downlink_bound(placement) == 0)


def test_a_negative_rate_violates_the_cut_of_its_worker() -> None:
    assert violated_cut(placement_of([[0, 1, 2]], 3), [1, Fraction(-1, 9), 1]) == (1,)


def test_cost_bound() -> None:
    placement = placement_of([[0], [1], [1]], 2)
    proof = [((0,), Fraction(5)), ((1,), Fraction(1, 2))]
    assert cost_bound(placement, [5, Fraction(1, 2)], proof) == 6
    assert cost_bound(placement, [5, 1], []) == 0


def test_time_bound() -> None:
    assert time_bound(placement_of([[0], [1], [1]], 2), [3, 4], [1]) == Fraction(1, 2)
    assert time_bound(CYCLIC, [1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4]) == Fraction(3, 15)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: violated_cut(CYCLIC, [1] * 5), "as many as workers"),
        (lambda: violated_cut(CYCLIC, [float("nan")] * 6), "rational"),  # type: ignore[list-item]
        (lambda: violated_cut(CYCLIC, [1] * 6, 0), "positive integer"),
        (lambda: violated_cut(CYCLIC, [1] * 6, Fraction(2)), "positive integer"),  # type: ignore[arg-type]
        (lambda: time_bound(CYCLIC, [1] * 6, []), "proper subset"),
        (lambda: time_bound(CYCLIC, [1] * 6, range(6)), "proper subset"),
        (lambda: time_bound(CYCLIC, [1] * 6, [1, 1]), "proper subset"),
        (lambda: time_bound(CYCLIC, [1] * 6, [6]), "proper subset"),
        (lambda: time_bound(CYCLIC, [1] * 5 + [0], [1]), "positive"),
        (lambda: cost_bound(CYCLIC, [1] * 5 + [-1], []), "negative"),
        (lambda: cost_bound(CYCLIC, [1] * 6, [((0,), Fraction(-1))]), "negative"),
        (lambda: cost_bound(CYCLIC, [1] * 6, [((0, 1), Fraction(1)), ((1,), Fraction(1, 9))]), "worker 1"),
        (lambda: cost_bound(CYCLIC, [1] * 6, [(range(6), Fraction(1))]), "proper subset"),
    ],
)
def test_bad_input(call: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        call()


def test_oracle_counts_set_partitions() -> None:
    """The oracle finds as many set partitions as Bell's numbers say."""
    assert [len({repr(blocks) for blocks in set_partitions(range(K))}) for K in range(7)] == [
        *(1, 1, 2, 5, 15, 52, 203)
    ]
