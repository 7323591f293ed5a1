from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from asyncdmtl.exchange import shares
from asyncdmtl.exchange.shares import shares_of
from asyncdmtl.plan.placement import Placement


def shares_of_all(
    stored: list[list[int]], vectors: int, giving: set[int] | None = None
) -> list[dict[int, int]]:
    holders = [[k for k, held in enumerate(stored) if v in held] for v in range(vectors)]
    wanted = [sorted(set(range(vectors)) - set(held)) for held in stored]
    givers = set(range(len(stored))) if giving is None else giving
    found = [dict(shares_of(k, holders, wanted, givers)) for k in range(len(stored))]
    for k, share in enumerate(found):
        assert set(share) <= set(wanted[k])
        assert all(giver in holders[v] and giver != k and giver in givers for v, giver in share.items())
    return found


@pytest.mark.parametrize(("workers", "copies", "asked"), [(8, 4, 1), (16, 2, 7), (6, 3, 1), (5, 1, 4)])
def test_workers_with_equal_stores_ask_few_and_give_equally_much(
    workers: int, copies: int, asked: int
) -> None:
    placement = Placement.cyclic(workers, workers, copies)
    stored = [list(held) for held in placement.stored]
    found = shares_of_all(stored, workers)
    given = Counter(giver for share in found for giver in share.values())
    assert set(given.values()) == {workers - copies}
    assert {len(set(share.values())) for share in found} == {asked}
    assert all(len(share) == workers - copies for share in found)


def test_loads_of_unequal_stores_are_near_to_each_other() -> None:
    rng = np.random.default_rng(0)
    stored = [sorted(rng.choice(12, 5, replace=False).tolist()) for _ in range(10)]
    found = shares_of_all(stored, 12)
    given = Counter(giver for share in found for giver in share.values())
    assert sum(given.values()) == 70
    assert max(given.values()) <= 9


def test_a_worker_that_holds_everything_does_not_give_all() -> None:
    found = shares_of_all([[0, 1, 2, 3], [0, 1], [2, 3], [0, 1]], 4)
    assert Counter(giver for share in found for giver in share.values())[0] <= 3


def test_vectors_that_nobody_gives_are_left_out() -> None:
    found = shares_of_all([[0], [1], [0, 1]], 2, giving={0})
    assert found == [{}, {0: 0}, {}]
    assert shares_of(0, [[0]], [[]], {0}) == {}


def test_only_the_own_shares_are_found_if_those_of_all_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MOST_WORK", 0)
    found = shares_of_all([list(held) for held in Placement.cyclic(8, 8, 4).stored], 8)
    assert [set(share.values()) for share in found] == [{(k + 4) % 8} for k in range(8)]
