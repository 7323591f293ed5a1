"""Wrong arguments are refused before any work, by an error that names argument and rule."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.placements import HOMOGENEOUS

from asyncdmtl import Placement, compare, design_placement, make_linear_plan, make_plan
from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan.recipe import rebuild_plan
from asyncdmtl.plan.serialization import rebuild
from asyncdmtl.plan.validation import rational, whole_number

PLAN = make_plan(HOMOGENEOUS)
V = np.zeros((3, 4), np.float32)
ROWS = PLAN.encode(0, V)
CENTRAL = make_plan(HOMOGENEOUS, "central")
ANY: Any = None


@pytest.mark.parametrize(
    "call",
    [
        lambda: Placement(ANY),
        lambda: Placement("abc"),  # type: ignore[arg-type]
        lambda: Placement([["a"]]),  # type: ignore[arg-type]
        lambda: Placement({"w0": ANY}),
        lambda: Placement({"w0": "abc"}),
        lambda: Placement({"w0": [1]}),  # type: ignore[list-item]
        lambda: Placement({"w0": ["a"]}, "a"),
        lambda: Placement({"w0": ["a"]}, 5),  # type: ignore[arg-type]
        lambda: Placement.cyclic("3", 3, 1),  # type: ignore[arg-type]
        lambda: Placement.cyclic(3, 3, 1.5),  # type: ignore[arg-type]
        lambda: HOMOGENEOUS.missing(7),
        lambda: make_plan({"w0": ["a"]}),  # type: ignore[arg-type]
        lambda: make_linear_plan({"w0": ["a"]}, np.ones((1, 1))),  # type: ignore[arg-type]
        lambda: compare({"w0": ["a"]}, [0]),  # type: ignore[arg-type]
        lambda: make_plan(HOMOGENEOUS, max_overhead=float("nan")),  # type: ignore[arg-type]
        lambda: make_plan(HOMOGENEOUS, max_overhead=float("inf")),  # type: ignore[arg-type]
        lambda: make_plan(HOMOGENEOUS, max_overhead=ANY),
        lambda: make_plan(HOMOGENEOUS, tasks=5),  # type: ignore[arg-type]
        lambda: make_plan(HOMOGENEOUS, tasks=[[0]] * 6),  # type: ignore[list-item]
        lambda: make_plan(HOMOGENEOUS, tasks=[0.0] * 6),  # type: ignore[list-item]
        lambda: make_plan(HOMOGENEOUS, prices=["1/0"] * 6),  # type: ignore[list-item]
        lambda: make_plan(HOMOGENEOUS, prices=[-1] * 6),
        lambda: make_plan(HOMOGENEOUS, speeds=[0] * 6),
        lambda: make_plan(HOMOGENEOUS, "central", silent=ANY),
        lambda: make_plan(HOMOGENEOUS, "central", silent=1, prices=[0] * 6),
        lambda: make_plan(HOMOGENEOUS, seed=-1),
        lambda: make_plan(HOMOGENEOUS, seed=0.5),  # type: ignore[arg-type]
        lambda: compare(HOMOGENEOUS, [0, 1]),
        lambda: compare(HOMOGENEOUS, [0, 5, 5, 5, 5, 5]),
        lambda: compare(HOMOGENEOUS, prices=[]),
        lambda: PLAN.encode(9, V),
        lambda: PLAN.encode(-1, V),
        lambda: PLAN.encode("w0", V),  # type: ignore[arg-type]
        lambda: PLAN.encode(0, [[1.0]]),  # type: ignore[arg-type]
        lambda: PLAN.encode(0, V.astype(object)),
        lambda: PLAN.decode(9, ROWS, V),
        lambda: PLAN.decode(0, ANY, V),
        lambda: PLAN.recombine([]),
        lambda: PLAN.recombine([ANY]),
        lambda: CENTRAL.collect({0: ROWS[:0, :1]}, 4, "float32"),
        lambda: make_linear_plan(HOMOGENEOUS, [[1.0, 2.0], [3.0]]),  # type: ignore[arg-type]
        lambda: make_linear_plan(HOMOGENEOUS, np.ones((1, 6)), seed=-1),
        lambda: make_linear_plan(HOMOGENEOUS, np.ones((1, 6)), subpackets=10**6),
        lambda: make_linear_plan(HOMOGENEOUS, np.ones((1, 6)), max_overhead="a"),  # type: ignore[arg-type]
        lambda: make_linear_plan(HOMOGENEOUS, np.ones((1, 6))).encode("w", V),  # type: ignore[arg-type]
        lambda: make_linear_plan(HOMOGENEOUS, np.ones((1, 6))).aggregate([1]),  # type: ignore[arg-type]
        lambda: design_placement([2, 2], 3, speeds=["1/0", 1]),  # type: ignore[list-item]
    ],
)
def test_a_wrong_argument_is_a_usage_error(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        call()


def test_what_is_no_recipe_is_refused() -> None:
    with pytest.raises(PlanError):
        rebuild(ANY, b"")
    with pytest.raises(PlanError):
        rebuild({"strategy": "linear"}, b"")


def test_numbers_of_numpy_are_numbers() -> None:
    tasks = np.array([0, 0, 1, 1, 2, 2])
    plan = make_plan(HOMOGENEOUS, "central", tasks=tasks, silent=np.int64(1), seed=np.int32(3))  # type: ignore[arg-type]
    assert plan.digest == make_plan(HOMOGENEOUS, "central", tasks=tasks.tolist(), silent=1, seed=3).digest
    assert rebuild_plan(plan.recipe(), plan.digest).tasks == (0, 0, 1, 1, 2, 2)


def test_a_float_is_the_decimal_that_it_is_written_as() -> None:
    assert rational("x", 0.1) == Fraction(1, 10)
    assert rational("x", np.float32(0.1)) == Fraction(1, 10)
    decimals: Any = [0.1, 0.7, 1.3, 2.9, 3.1, 0.37, 9.1]
    plan = make_plan(Placement.cyclic(7, 21, 3), speeds=decimals, max_overhead=Fraction(1, 10))
    assert plan.uplink_load >= plan.uplink_bound


@pytest.mark.parametrize("value", ["1e99999999", "9" * 1000, True, "1/0", "nan", [1]])
def test_numbers_are_of_moderate_size(value: Any) -> None:
    with pytest.raises(UsageError, match="x must be"):
        rational("x", value)
    with pytest.raises(UsageError, match="x must be a whole number from 0 on"):
        whole_number("x", value)
