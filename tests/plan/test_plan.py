from __future__ import annotations

import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from support.oracle import least_uplink_load, small_placements

from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.plan.building import build_plan
from asyncdmtl.plan.parameters import PlanParameters
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan

TRIANGLE = Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]})
V = np.random.default_rng(0).standard_normal((3, 8))


def uplink(plan: Plan, updates: Any = V) -> list[Any]:
    return [plan.encode(k, updates[list(own)]) for k, own in enumerate(plan.placement.stored)]


def test_the_triangle_has_the_loads_of_the_textbook() -> None:
    # Each worker lacks one of three vectors: R_CO = 3/2, and one combined vector comes down.
    plan = make_plan(TRIANGLE)
    assert (plan.uplink_load, plan.uplink_bound) == (Fraction(3, 2), Fraction(3, 2))
    assert plan.downlink_load == plan.downlink_bound == 1
    assert plan.wire_downlink_load == 3
    assert plan.subpackets == 2
    assert plan.certificate == ((0,), (1,), (2,))
    assert plan.broadcasts == "updates"


@given(placement=small_placements(4, 5))
@settings(deadline=None, max_examples=15)
def test_loads_of_relay_are_those_of_brute_force(placement: Placement) -> None:
    plan = make_plan(placement)
    assert plan.uplink_load == plan.uplink_bound == plan.optimum.load == least_uplink_load(placement)[0]
    lacked = [len(placement.partitions) - len(own) for own in placement.stored]
    assert plan.downlink_load == plan.downlink_bound == max(lacked)
    assert plan.wire_downlink_load == sum(lacked)


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("central", "aggregates"), ("personal", "models"), ("relay", "updates")],
)
def test_the_downlink_combines_what_the_strategy_sends_down(strategy: Any, kind: str) -> None:
    plan = make_plan(TRIANGLE, strategy, tasks=[0, 1, 1])
    assert plan.broadcasts == kind
    if kind != "updates":
        assert plan.combined is plan.downlink_matrix
        assert plan.combined.shape[1] == 2 * plan.subpackets


def test_combined_rows_are_the_product_of_both_matrices() -> None:
    plan = make_plan(TRIANGLE)
    V = np.random.default_rng(1).integers(0, 256, (3, 6), dtype=np.uint8)
    down = plan.recombine(uplink(plan, V))
    packets = plan.vector_format(6, np.uint8).pack(V)
    # Products over GF(2^8) as the schoolbook has them, with 0x11d.
    for row, coefficients in zip(down, plan.combined, strict=True):
        expected = np.zeros_like(row)
        for factor, packet in zip(coefficients, packets, strict=True):
            expected ^= np.array([times(int(factor), int(byte)) for byte in packet], np.uint8)
        assert (row == expected).all()


def times(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a * (b & 1)
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16"])
@pytest.mark.parametrize("length", [1, 7])
def test_every_worker_decodes_the_bits_that_were_sent(dtype: str, length: int) -> None:
    plan = make_plan(TRIANGLE)
    updates = np.random.default_rng(2).integers(0, 200, (3, length)).astype(dtype)
    down = plan.recombine(uplink(plan, updates))
    for k, delivery in enumerate(plan.deliveries):
        decoded = plan.decode(k, down[list(delivery.rows)], updates[list(delivery.known)])
        assert decoded.dtype == np.dtype(dtype)
        assert decoded.tobytes() == updates[list(delivery.wanted)].tobytes()


def test_a_server_collects_from_all_but_the_silent_workers() -> None:
    plan = make_plan(Placement.cyclic(4, 4, 3), "central", silent=1)
    updates = np.random.default_rng(3).standard_normal((4, 5))
    parts = dict(enumerate(uplink(plan, updates)))
    for silent in range(4):
        heard = {k: rows for k, rows in parts.items() if k != silent}
        assert plan.collect(heard, 5, "float64").tobytes() == updates.tobytes()
    with pytest.raises(CodingError):
        plan.collect({0: parts[0]}, 5, "float64")


def test_digests_tell_plans_apart() -> None:
    plan = make_plan(TRIANGLE)
    assert len(plan.digest) == 16
    assert make_plan(TRIANGLE).digest == plan.digest
    renamed = Placement({"w0": ["a", "b"], "w1": ["b", "c"], "x": ["c", "a"]})
    others = [make_plan(TRIANGLE, seed=9), make_plan(TRIANGLE, "uncoded"), make_plan(renamed)]
    assert len({plan.digest, *(other.digest for other in others)}) == 4


def test_matrices_cannot_be_changed_even_in_copies() -> None:
    plan = make_plan(TRIANGLE)
    uplink(plan)
    for each in (plan, pickle.loads(pickle.dumps(plan))):
        for matrix in (each.uplink_matrix, each.downlink_matrix):
            with pytest.raises(ValueError, match="read-only"):
                matrix[0, 0] = 1
    assert pickle.loads(pickle.dumps(plan)).digest == plan.digest


PLAN = make_plan(TRIANGLE)
NUMBERS: Any = [[1.0]]
ROWS = uplink(PLAN)
WRONG: Any = V


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PLAN.encode(3, V[:2]), "worker must be a whole number from 0 to 2, got 3"),
        (lambda: PLAN.encode(0, V), r"updates must have the shape \(2, d\), got \(3, 8\)"),
        (lambda: PLAN.encode(0, NUMBERS), "updates must be a NumPy array of numbers, got 'list'"),
        (lambda: PLAN.decode(0, ROWS[0][:0], V[:2]), r"rows must have the shape \(2, 32\), got \(0, 32\)"),
        (lambda: PLAN.decode(0, ROWS[0], V), r"known must have the shape \(2, d\)"),
        (lambda: PLAN.recombine(ROWS[:2]), "uplink must have 3 rows of equal length in all"),
        (
            lambda: PLAN.recombine([ROWS[0], ROWS[1][:, :4], ROWS[2]]),
            "uplink must have 3 rows of equal length",
        ),
        (lambda: PLAN.recombine([*ROWS[:2], WRONG]), "uplink must be a 2-D array of uint8"),
        (lambda: PLAN.collect({5: ROWS[0]}, 8, "float64"), "worker must be a whole number from 0 to 2"),
        (lambda: PLAN.collect({0: ROWS[0][:, :9]}, 8, "float64"), "rows of worker 0 must have the shape"),
        (lambda: PLAN.vector_format(0, "float32"), "length must be a whole number from 1 on, got 0"),
        (lambda: PLAN.vector_format(3, "text"), "dtype must be a NumPy dtype of numbers"),
    ],
)
def test_arguments_that_break_a_rule_are_named(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        call()


@pytest.mark.parametrize("uplink", [{0: ROWS[0]}, 7])
def test_rows_of_all_workers_come_in_their_order(uplink: Any) -> None:
    with pytest.raises(UsageError, match=r"^uplink must be a list of arrays, one per worker, got '"):
        PLAN.recombine(uplink)
    with pytest.raises(UsageError, match=r"^uplink must map workers to their rows, got 'list'"):
        PLAN.collect([ROWS], 8, "float64")  # type: ignore[arg-type]


def test_silent_workers_cost_more_than_the_vectors_themselves() -> None:
    plan = make_plan(Placement.cyclic(4, 4, 3), "central", silent=1)
    # Any three workers must send all four vectors: each sends 4/3.
    assert plan.uplink_load == plan.uplink_bound == Fraction(16, 3)


def test_under_personal_every_model_comes_down_once() -> None:
    plan = make_plan(TRIANGLE, "personal", tasks=[0, 1, 1])
    assert plan.downlink_load == plan.downlink_bound == 2
    assert plan.uplink_load >= plan.uplink_bound > 0


def test_vectors_of_merged_blocks_may_be_given_in_any_order_of_their_names() -> None:
    # p0 and p2 have equal holders, and so have p1 and p3: blocks lie across the order of the partitions.
    crossed = Placement({"a": ["p0", "p1", "p2", "p3"], "b": ["p0", "p2", "p4", "p5"]})
    plan = build_plan(
        PlanParameters(crossed, tuple(range(6)), "relay", subpackets=1, uplink_rows=(1, 1), seed=0, merged=2)
    )
    assert plan.uplink_load == 4
    updates = np.random.default_rng(4).standard_normal((6, 3))
    down = plan.recombine(uplink(plan, updates))
    for k, delivery in enumerate(plan.deliveries):
        decoded = plan.decode(k, down[list(delivery.rows)], updates[list(delivery.known)])
        assert decoded.tobytes() == updates[list(delivery.wanted)].tobytes()
