from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import pytest
from support.linear_oracle import fractional_minimum
from support.oracle import placement_of, proper_subsets
from support.placements import HETEROGENEOUS, HOMOGENEOUS, numbered, random_placement

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import job
from asyncdmtl.plan.rates.job import (
    certified_load,
    exclusive_tasks,
    job_bound,
    job_bound_with_silent_workers,
    job_downlink_bound,
)
from asyncdmtl.plan.rates.optimum import uplink_optimum


def broken_tasks(placement: Placement, tasks: Sequence[int], S: Sequence[int]) -> int:
    """Tasks that the workers outside `S` cannot compute from their partitions, by the definition."""
    outside = {n for k, stored in enumerate(placement.stored) if k not in S for n in stored}
    return len({t for n, t in enumerate(tasks) if n not in outside})


def demands_of(placement: Placement, tasks: Sequence[int], at_server: bool) -> dict[frozenset[int], int]:
    K = len(placement.workers)
    cuts = [S for size in range(1, K + at_server) for S in combinations(range(K), size)]
    found = {frozenset(S): broken_tasks(placement, tasks, S) for S in cuts}
    return {S: demand for S, demand in found.items() if demand}


@pytest.mark.parametrize("at_server", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_the_bound_is_the_value_of_the_linear_program(seed: int, at_server: bool) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng, most_workers=4, most_partitions=7)
    tasks = numbered(rng.randrange(4) for _ in placement.partitions)
    K = len(placement.workers)
    bound = job_bound(placement, tasks, at_server=at_server)
    demands = demands_of(placement, tasks, at_server)
    assert bound.complete
    assert bound.load == (fractional_minimum(K, demands) if demands else 0)
    assert certified_load(placement, tasks, bound.certificate, at_server=at_server) == bound.load
    for S, demand in demands.items():
        assert exclusive_tasks(placement, tasks, S) == demand


@pytest.mark.parametrize("seed", range(20))
def test_cuts_that_are_searched_for_prove_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng, most_workers=6, most_partitions=10)
    tasks = numbered(rng.randrange(5) for _ in placement.partitions)
    at_server = seed % 2 == 1
    listed = job_bound(placement, tasks, at_server=at_server)
    for proven_sets in (job._PROVEN_SETS, 0):
        monkeypatch.setattr(job, "ALL_CUTS_WORKERS", 0)
        monkeypatch.setattr(job, "_PROVEN_SETS", proven_sets)
        job._job_bound.cache_clear()
        searched = job_bound(placement, tasks, at_server=at_server)
        job._job_bound.cache_clear()
        assert searched.load <= listed.load
        assert searched.load == listed.load or not searched.complete
        assert certified_load(placement, tasks, searched.certificate, at_server=at_server) == searched.load


def test_tasks_with_one_rarest_partition_count_as_one_partition() -> None:
    rng = random.Random(0)
    rare = [rng.sample(range(30), 3) for _ in range(100)]
    holders = [H for own in rare for H in (own, sorted({*own, *rng.sample(range(30), 4)}))]
    placement, tasks = placement_of(holders, 30), [n // 2 for n in range(200)]
    apart = placement_of(rare, 30)
    for helpers in ((), (3, 7)):
        bound = job_bound(placement, tasks, helpers=helpers)
        assert bound.complete
        assert bound.load == job_bound(apart, range(100), helpers=helpers).load
        assert certified_load(placement, tasks, bound.certificate, helpers=helpers) == bound.load
    assert job_bound(placement, tasks, at_server=True).load == 100


@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS, Placement.cyclic(12, 12, 3)], ids=repr)
def test_a_task_for_each_partition_has_the_bound_of_all_updates(placement: Placement) -> None:
    tasks = range(len(placement.partitions))
    assert job_bound(placement, tasks).load == uplink_optimum(placement).load
    assert job_bound(placement, tasks, at_server=True).load == len(placement.partitions)
    assert job_downlink_bound(placement, tasks) == len(tasks) - min(map(len, placement.stored))


def test_silent_workers_raise_the_bound() -> None:
    tasks = [n // 2 for n in range(6)]
    loads = [job_bound_with_silent_workers(HOMOGENEOUS, tasks, silent).load for silent in (0, 1, 2)]
    assert loads == sorted(loads)
    assert loads[0] == job_bound(HOMOGENEOUS, tasks, at_server=True).load


def test_wrong_certificates_are_refused() -> None:
    for wrong in ([((0,), Fraction(-1))], [((), Fraction(1))], [(tuple(range(6)), Fraction(1))]):
        with pytest.raises(UsageError, match="cuts with multipliers"):
            certified_load(HOMOGENEOUS, range(6), wrong)
    with pytest.raises(UsageError, match="more than 1 at worker 1"):
        certified_load(HOMOGENEOUS, range(6), [((0, 1), Fraction(1)), ((1, 2), Fraction(1, 2))])


@pytest.mark.parametrize("seed", range(6))
def test_helpers_take_cuts_away(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    K, N = rng.randint(2, 4), rng.randint(2, 6)
    placement = placement_of([rng.sample(range(K), rng.randint(1, K)) for _ in range(N)], K)
    tasks = [n // 2 for n in range(N)]
    helpers = sorted(rng.sample(range(K), rng.randint(1, K - 1)))
    demanders = set(range(K)) - set(helpers)
    cuts = {
        frozenset(S): count
        for S in proper_subsets(K)
        if (count := broken_tasks(placement, tasks, S)) and not demanders <= set(S)
    }
    least = fractional_minimum(K, cuts) if cuts else Fraction(0)
    bound = job_bound(placement, tasks, helpers=helpers)
    assert bound.load == least
    assert certified_load(placement, tasks, bound.certificate, helpers=helpers) == least
    monkeypatch.setattr(job, "ALL_CUTS_WORKERS", 1)
    assert job_bound(placement, tasks, helpers=helpers).load <= least
    with pytest.raises(UsageError, match="cuts"):
        certified_load(placement, tasks, [(tuple(sorted(demanders)), Fraction(1))], helpers=helpers)
