from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from asyncdmtl.errors import CodingError
from asyncdmtl.plan.linear import erasure
from asyncdmtl.plan.linear.erasure import (
    Code,
    CodeProgram,
    codes_of_lines,
    find_codes,
    total,
    uplink_from_codes,
)
from asyncdmtl.plan.linear.matrices import solve_decoding
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement

CASES = [
    (Placement.cyclic(4, 8, 3), 2, 1),
    (Placement.cyclic(5, 10, 4), 1, 2),
    (Placement.cyclic(4, 4, 3), 1, 1),
    (Placement({"a": ["x", "y", "z"], "b": ["x", "y"], "c": ["y", "z"], "d": ["x", "z"]}), 3, 1),
]


def target_of(placement: Placement, combinations: int) -> Target:
    shape = (combinations, len(placement.partitions))
    return Target(placement, np.random.default_rng(2).standard_normal(shape))


def responders_of(placement: Placement, silent: int) -> list[tuple[int, ...]]:
    K = len(placement.workers)
    return list(combinations(range(K), K - silent))


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize(("placement", "rows", "silent"), CASES)
def test_codes_decode_from_every_set_of_responders(
    placement: Placement, rows: int, silent: int, packets: int
) -> None:
    target, rng = target_of(placement, rows), np.random.default_rng(0)
    responders = responders_of(placement, silent)
    bound = cut_bound(target, subpackets=packets, silent=silent)
    safe = codes_of_lines(target, subpackets=packets, silent=silent)
    codes = find_codes(target, bound, responders, rng, subpackets=packets, silent=silent)
    assert bound.packets <= total(codes) <= total(safe)
    for choice in (safe, codes):
        W, _ = uplink_from_codes(target, choice, rng, subpackets=packets)
        assert sum(map(len, W)) == total(choice)
        for A in responders:
            solve_decoding(target.columns, [W[k] for k in A], packets)


def test_codes_without_rows_reach_nothing() -> None:
    target = target_of(Placement.cyclic(3, 3, 2), 1)
    nothing = Code((0, 0, 0), np.eye(1), (), 0)
    with pytest.raises(CodingError, match="do not reach"):
        uplink_from_codes(target, [nothing], np.random.default_rng(0), subpackets=1)


def test_a_need_that_extra_columns_missed_is_met_otherwise() -> None:
    placement = Placement.cyclic(4, 4, 3)
    target = target_of(placement, 2)
    program = CodeProgram(target, cut_bound(target, silent=1), subpackets=1, silent=1)
    before = program.solve()
    for need in target.needs:
        program.forbid_extra(need)
    after = program.solve()
    assert before is not None
    assert after is not None
    assert total(before) <= total(after)


def test_a_program_that_is_too_large_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(Placement.cyclic(4, 4, 3), 2)
    monkeypatch.setattr(erasure, "MAX_VARIABLES", 2)
    assert CodeProgram(target, cut_bound(target, silent=1), subpackets=1, silent=1).solve() is None
