from __future__ import annotations

import random
from itertools import product

import pytest
from support.oracle import placement_of
from support.placements import HETEROGENEOUS, random_placement

from asyncdmtl.plan.rates.senders import choose_senders


@pytest.mark.parametrize("seed", range(40))
def test_the_most_loaded_worker_is_loaded_as_little_as_possible(seed: int) -> None:
    placement = random_placement(random.Random(seed), most_workers=4, most_partitions=7)
    K = len(placement.workers)
    senders = choose_senders(placement)
    assert all(k in H for k, H in zip(senders, placement.holders, strict=True))
    best = min(max(choice.count(k) for k in range(K)) for choice in product(*placement.holders))
    assert max(senders.count(k) for k in range(K)) == best


@pytest.mark.parametrize("seed", range(20))
def test_the_cheapest_holder_sends(seed: int) -> None:
    rng = random.Random(seed)
    placement = random_placement(rng)
    prices = [rng.randint(0, 3) for _ in placement.workers]
    for k, H in zip(choose_senders(placement, prices), placement.holders, strict=True):
        assert prices[k] == min(prices[j] for j in H)


def test_partitions_move_along_a_path_of_holders() -> None:
    # The greedy start gives worker 0 the first two partitions; one has to go on to worker 2 through worker 1.
    placement = placement_of([[0, 1], [0, 1], [1, 2], [1, 2], [0]], 3)
    senders = choose_senders(placement)
    assert max(senders.count(k) for k in range(3)) == 2
    assert choose_senders(HETEROGENEOUS) == choose_senders(HETEROGENEOUS)
