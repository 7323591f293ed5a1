from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from asyncdmtl.errors import CodingError
from asyncdmtl.plan.linear import matrices
from asyncdmtl.plan.linear.erasure import codes_of_lines
from asyncdmtl.plan.linear.matrices import build_downlink, build_uplink, solve_decoding
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement


@pytest.mark.parametrize(("silent", "packets"), [(0, 1), (0, 2), (1, 1), (1, 2)])
def test_uplinks_decode_from_every_set_of_responders(silent: int, packets: int) -> None:
    placement = Placement.cyclic(4, 8, 3)
    target = Target(placement, np.random.default_rng(0).standard_normal((2, 8)))
    responders = list(combinations(range(4), 4 - silent))
    bound = cut_bound(target, subpackets=packets, silent=silent)
    W, condition = build_uplink(target, bound, responders, np.random.default_rng(1), packets, silent)
    assert sum(map(len, W)) >= bound.packets
    for A in responders:
        D, worst = solve_decoding(target.columns, [W[k] for k in A], packets)
        assert D.shape == (target.rank * packets, sum(len(W[k]) for k in A))
        assert worst <= condition


def test_rows_that_do_not_determine_the_target_are_refused() -> None:
    with pytest.raises(CodingError, match="do not determine"):
        solve_decoding(np.eye(2), [np.array([[1.0, 0.0]])], 1)


@pytest.mark.parametrize("rank", [1, 3])
def test_leading_rows_of_the_downlink_have_the_rank_each_worker_needs(rank: int) -> None:
    placement = Placement({"a": ["x", "y", "z", "u"], "b": ["x"], "c": ["y", "z", "u"]})
    A = np.random.default_rng(2).standard_normal((rank, 4))
    target = Target(placement, A)
    downlink = build_downlink(target, np.random.default_rng(3))
    D, ranks = downlink.of_target, downlink.ranks
    assert np.allclose(D @ A, downlink.of_updates)
    assert build_downlink(target, np.random.default_rng(3), [1]).ranks == (0, 0, min(rank, 1))
    assert ranks == (0, min(rank, 3), min(rank, 1))
    assert len(D) == max(ranks)
    for k, needed in enumerate(ranks):
        missing = list(placement.missing(k))
        assert np.linalg.matrix_rank(D[:needed] @ A[:, missing]) == needed if missing else needed == 0


def test_badly_conditioned_draws_are_improved(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = Placement.cyclic(6, 6, 4)
    target = Target(placement, np.random.default_rng(0).standard_normal((2, 6)))
    responders = list(combinations(range(6), 5))
    codes = codes_of_lines(target, subpackets=2, silent=1)
    monkeypatch.setattr(matrices, "find_codes", lambda *_, **__: codes)
    monkeypatch.setattr(matrices, "_MOST_DRAWS", 2)
    bound = cut_bound(target, silent=1)
    _, plain = build_uplink(target, bound, responders, np.random.default_rng(1), 2, 1)
    monkeypatch.setattr(matrices, "FAIR_CONDITION", 1.0)
    monkeypatch.setattr(matrices, "_GOOD_CONDITION", 1.0)
    W, improved = build_uplink(target, bound, responders, np.random.default_rng(1), 2, 1)
    assert improved < plain
    for A in responders:
        solve_decoding(target.columns, [W[k] for k in A], 2)
