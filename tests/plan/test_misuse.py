"""Wrong arguments of public functions raise errors of this package, which name the argument."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.plan.compare import cheapest, compare
from asyncdmtl.plan.design.additions import RoundLoads, best_additions
from asyncdmtl.plan.design.search import design_placement, trade_off
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

CYCLIC = Placement.cyclic(3, 6, 2)
PLAN, CENTRAL = make_plan(CYCLIC), make_plan(CYCLIC, "central")
COMPARED = compare(CYCLIC)
LINEAR = make_linear_plan(CYCLIC, np.ones((1, 6)), subpackets=2)
V = np.arange(24, dtype=np.float32).reshape(6, 4)
UP = [PLAN.encode(k, V[list(stored)]) for k, stored in enumerate(CYCLIC.stored)]
DOWN = PLAN.recombine(UP)
ROWS = {k: LINEAR.encode(k, V[list(stored)]) for k, stored in enumerate(CYCLIC.stored)}

PLAN_WORKER: Any = np.int64(0)
PARTITIONS: Any = np.int64(4)
ONE: Any = np.int64(1)

STRANGE: list[Any] = [
    *(None, True, -1, 0, 1.5, float("nan"), float("inf"), "x", b"x", "", 10**30, Fraction(1, 3), 1j),
    *([], [None], ["x"], {}, {"a": 1}, {0: None}, object(), lambda: 0, [1, 2], [-1, 1, 1], [[1]], range(3)),
    *(np.nan, np.array(1), np.zeros(3), np.zeros((2, 2)), np.array(["a"]), np.zeros((1, 4), np.uint8)),
    np.zeros((3, 4), dtype=object),
]

CALLS: dict[str, Callable[[Any], object]] = {
    "make_plan placement": lambda x: make_plan(x),
    "make_plan strategy": lambda x: make_plan(CYCLIC, x),
    "make_plan tasks": lambda x: make_plan(CYCLIC, tasks=x),
    "make_plan max_overhead": lambda x: make_plan(CYCLIC, max_overhead=x),
    "make_plan prices": lambda x: make_plan(CYCLIC, prices=x),
    "make_plan speeds": lambda x: make_plan(CYCLIC, speeds=x),
    "make_plan silent": lambda x: make_plan(CYCLIC, "central", silent=x),
    "make_plan seed": lambda x: make_plan(CYCLIC, seed=x),
    "make_plan wants": lambda x: make_plan(CYCLIC, wants=x),
    "make_plan want": lambda x: make_plan(CYCLIC, wants={"w0": x}),
    "make_plan units": lambda x: make_plan(CYCLIC, units=x),
    "vector_format length": lambda x: PLAN.vector_format(x, "float32"),
    "vector_format dtype": lambda x: PLAN.vector_format(4, x),
    "compare placement": lambda x: compare(x),
    "compare wants": lambda x: compare(CYCLIC, wants=x),
    "compare units": lambda x: compare(CYCLIC, units=x),
    "compare max_overhead": lambda x: compare(CYCLIC, max_overhead=x),
    "cheapest network": lambda x: cheapest(COMPARED, x),
    "best_additions placement": lambda x: best_additions(x, 1),
    "best_additions count": lambda x: best_additions(CYCLIC, x) if not _large(x) else None,
    "RoundLoads placement": lambda x: RoundLoads(x),
    "RoundLoads tasks": lambda x: RoundLoads(CYCLIC, x),
    "RoundLoads wants": lambda x: RoundLoads(CYCLIC, wants=x),
    "RoundLoads prices": lambda x: RoundLoads(CYCLIC, prices=x),
    "RoundLoads speeds": lambda x: RoundLoads(CYCLIC, speeds=x),
    "compare tasks": lambda x: compare(CYCLIC, x),
    "compare prices": lambda x: compare(CYCLIC, prices=x),
    "compare speeds": lambda x: compare(CYCLIC, speeds=x),
    "compare silent": lambda x: compare(CYCLIC, silent=x),
    "Placement": lambda x: Placement(x),
    "Placement stored": lambda x: Placement({"w": x}),
    "Placement partitions": lambda x: Placement({"w": ["a"]}, x),
    "Placement.cyclic": lambda x: Placement.cyclic(x, 3, 1) if not _large(x) else None,
    "Placement.missing": lambda x: CYCLIC.missing(x),
    "design capacities": lambda x: design_placement(x, 3),
    "design capacity": lambda x: design_placement([x, 3], 3),
    "design partitions": lambda x: design_placement([3, 3], x) if not _large(x) else None,
    "design copies": lambda x: design_placement([3, 3], 3, copies=x),
    "design speeds": lambda x: design_placement([3, 3], 3, speeds=x),
    "design seed": lambda x: design_placement([3, 3], 3, seed=x),
    "trade_off workers": lambda x: trade_off(x, 3) if not _large(x) else None,
    "trade_off copies": lambda x: trade_off(2, 3, x),
    "encode worker": lambda x: PLAN.encode(x, V[:4]),
    "encode updates": lambda x: PLAN.encode(0, x),
    "recombine": lambda x: PLAN.recombine(x),
    "recombine part": lambda x: PLAN.recombine([x, *UP[1:]]),
    "decode worker": lambda x: PLAN.decode(x, DOWN, V[:4]),
    "decode rows": lambda x: PLAN.decode(0, x, V[:4]),
    "decode known": lambda x: PLAN.decode(0, DOWN, x),
    "collect": lambda x: CENTRAL.collect(x, 4, "float32"),
    "collect rows": lambda x: CENTRAL.collect({0: x}, 4, "float32"),
    "collect length": lambda x: CENTRAL.collect({}, x, "float32") if not _large(x) else None,
    "collect dtype": lambda x: CENTRAL.collect({}, 4, x),
    "linear placement": lambda x: make_linear_plan(x, np.ones((1, 6))),
    "linear target": lambda x: make_linear_plan(CYCLIC, x),
    "linear silent": lambda x: make_linear_plan(CYCLIC, np.ones((1, 6)), silent=x),
    "linear subpackets": lambda x: make_linear_plan(CYCLIC, np.ones((1, 6)), subpackets=x),
    "linear max_overhead": lambda x: make_linear_plan(CYCLIC, np.ones((1, 6)), max_overhead=x),
    "linear seed": lambda x: make_linear_plan(CYCLIC, np.ones((1, 6)), seed=x),
    "linear wants": lambda x: make_linear_plan(CYCLIC, np.ones((1, 6)), wants=x),
    "linear at_server": lambda x: make_linear_plan(CYCLIC, np.ones((1, 6)), at_server=x),
    "linear encode worker": lambda x: LINEAR.encode(x, V[:4]),
    "linear recover worker": lambda x: LINEAR.recover(x, V[:1], V[:4]),
    "linear encode": lambda x: LINEAR.encode(0, x),
    "linear aggregate": lambda x: LINEAR.aggregate(x),
    "linear aggregate rows": lambda x: LINEAR.aggregate({**ROWS, 0: x}),
    "linear aggregate worker": lambda x: LINEAR.aggregate({x: ROWS[0]}) if _hashable(x) else None,
    "linear aggregate length": lambda x: LINEAR.aggregate(ROWS, length=x),
    "linear broadcast": lambda x: LINEAR.broadcast(x),
    "linear recover rows": lambda x: LINEAR.recover(0, x, V[:4]),
    "linear recover updates": lambda x: LINEAR.recover(0, V[:1], x),
    "linear decoding_matrix": lambda x: LINEAR.decoding_matrix(x),
}


def str_of_numpy(text: str) -> Any:
    return np.str_(text)


def _large(value: Any) -> bool:
    return isinstance(value, int) and value > 10**6


def _hashable(value: Any) -> bool:
    return not isinstance(value, list | dict | np.ndarray)


@pytest.mark.parametrize("call", CALLS)
def test_strange_values_are_served_or_refused_by_name(call: str) -> None:
    for value in STRANGE:
        try:
            CALLS[call](value)
        except AsyncDMTLError:
            pass
        except Exception as error:
            raise AssertionError(f"{value!r} raised {error!r}") from error


def test_lengths_that_rows_cannot_have() -> None:
    for length in (-1, 0, 5, True):
        with pytest.raises(UsageError, match="length must be a whole number from 1"):
            LINEAR.aggregate(ROWS, length=length)
    assert LINEAR.aggregate(ROWS, length=3).shape == (1, 3)


def test_numbers_and_names_of_numpy_are_welcome() -> None:
    named = Placement({np.str_("a"): [np.str_("x"), "y"], "b": np.array(["y", "z"])})
    assert {type(name) for name in (*named.workers, *named.partitions)} == {str}
    given: dict[str, Any] = {"tasks": np.array([0, 0, 1]), "prices": np.array([1, 2]), "seed": np.int64(3)}
    plan = make_plan(named, str_of_numpy("central"), **given)
    assert type(plan.recipe()["strategy"]) is str
    counts: Any = (np.int64(3), np.int32(6), 2)
    assert Placement.cyclic(*counts) == CYCLIC
    assert PLAN.encode(PLAN_WORKER, V[:4]).dtype == np.uint8
    assert design_placement([3, 3], PARTITIONS).uplink_load == 2
    assert make_linear_plan(CYCLIC, np.ones((1, 6)), silent=ONE).silent == 1


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_copies_of_plans_have_read_only_matrices(again: Callable[[Any], Any]) -> None:
    LINEAR.aggregate(ROWS)
    for plan in (PLAN, CENTRAL):
        other = again(plan)
        assert not other.uplink_matrix.flags.writeable
        assert not other.downlink_matrix.flags.writeable
        assert other.digest == plan.digest
    linear = again(LINEAR)
    for matrix in (linear.target, linear.downlink_matrix, *linear.uplink_matrices):
        assert not matrix.flags.writeable
    assert np.array_equal(linear.aggregate(ROWS), LINEAR.aggregate(ROWS))
