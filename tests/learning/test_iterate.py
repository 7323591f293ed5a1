from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.arrays import Bytes, Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import PartitionInfo

NO_TURN = np.array([[-1.0, 1.0, 4.0], [0.0, 0.0, 1.0]])


def state_of(iterate: Iterate) -> Bytes:
    return np.concatenate(iterate.state_parts())


def make_iterate(classes: str = "01", **changes: Any) -> Iterate:
    """Two tasks of two features and a free intercept."""
    settings = make_settings(**{"loss": "logistic", "dtype": "float64"} | changes)
    infos = [PartitionInfo(f"p{t}", f"t{t}", bytes(16), 3, 3.0, 2, 1.0, classes) for t in range(2)]
    return Iterate(Problem(settings, infos))


def move(iterate: Iterate, value: float, sums: Floats = NO_TURN) -> None:
    iterate.move(np.full_like(iterate.W, value), sums)


def test_models_begin_at_zero_but_for_fixed_intercepts() -> None:
    assert (make_iterate().W == 0.0).all()
    fixed = make_iterate(classes="1").W
    assert (fixed[:, :2] == 0.0).all()
    assert fixed[:, 2] == pytest.approx(math.log(4))


def test_momentum_is_that_of_fista() -> None:
    iterate, t = make_iterate(), 1.0
    for step in range(1, 6):
        move(iterate, float(step))
        before, t = t, (1.0 + math.sqrt(1.0 + 4.0 * t * t)) / 2.0
        # Each step moves by 1, so that Y is ahead by the momentum.
        assert pytest.approx(np.full((2, 3), step + (before - 1.0) / t)) == iterate.Y
    assert iterate.steps == 5


def test_momentum_ends_where_a_step_goes_uphill() -> None:
    iterate = make_iterate()
    for step in range(1, 4):
        move(iterate, float(step))
    assert (iterate.Y > iterate.W).all()
    move(iterate, 9.0, np.array([[1.0, 1.0, 4.0], [0.0, 0.0, 1.0]]))
    assert (iterate.Y == iterate.W).all()


def test_without_acceleration_updates_are_computed_at_the_models() -> None:
    iterate = make_iterate(accelerated=False)
    assert not iterate.accelerated
    first = iterate.W
    assert iterate.move(np.ones_like(first), NO_TURN) is first
    assert np.shares_memory(iterate.Y, iterate.W)
    assert (iterate.Y == 1.0).all()


def test_some_columns_or_rows_ahead_are_those_of_all() -> None:
    iterate = make_iterate()
    rng = np.random.default_rng(0)
    for _ in range(3):
        iterate.move(rng.standard_normal((2, 3)), NO_TURN)
    Y, out = iterate.Y, np.empty((2, 2))
    assert iterate.ahead(slice(1, 3), out) is out
    assert (out == Y[:, 1:3]).all()
    assert (iterate.ahead_of(1, slice(0, 2)) == Y[1, :2]).all()


def test_the_residual_is_gradient_times_size_for_both_kinds_of_columns() -> None:
    iterate = make_iterate()
    one, other = iterate._problem.step_lengths
    move(iterate, 1.0, np.array([[-1.0, 4.0, 9.0], [-1.0, 16.0, 25.0]]))
    assert iterate.residual == pytest.approx(2 * 3 / one + 4 * 5 / other)


@pytest.mark.parametrize(("dtype", "moved", "still"), [("float32", 1e-7, True), ("float64", 1e-7, False)])
def test_models_that_move_by_rounding_alone_have_converged(dtype: str, moved: float, still: bool) -> None:
    iterate = make_iterate(dtype=dtype)
    move(iterate, 1.0, np.array([[0.0, moved**2, 1.0], [0.0, moved**2, 1.0]]))
    assert (iterate.residual == 0.0) == still


def test_an_intercept_may_move_by_the_rounding_of_scores() -> None:
    iterate = make_iterate(dtype="float64")
    for moved, still in ((1e-16, True), (1e-12, False)):
        move(iterate, 1.0, np.array([[0.0, 0.0, 1.0], [0.0, moved**2, 1e-40]]))
        assert (iterate.residual == 0.0) == still


def test_placed_models_have_no_momentum() -> None:
    iterate = make_iterate()
    for step in range(1, 4):
        move(iterate, float(step))
    models = np.array([[7.0, 8.0, 9.0]])
    iterate.place([1], models)
    assert (iterate.Y[1] == models).all()
    assert (iterate.Y[0] > iterate.W[0]).all()


@pytest.mark.parametrize("accelerated", [True, False])
def test_a_state_continues_elsewhere_bit_for_bit(accelerated: bool) -> None:
    one, other = (make_iterate(accelerated=accelerated) for _ in range(2))
    for step in range(1, 4):
        move(one, step / 3.0)
    state = state_of(one)
    assert state.shape == (one._problem.state_bytes,)
    other.restore(state)
    assert (other.residual, other.steps) == (one.residual, 3)
    for iterate in (one, other):
        move(iterate, 0.1)
    assert one.Y.tobytes() == other.Y.tobytes()
    assert state_of(one).tobytes() == state_of(other).tobytes()


@pytest.mark.parametrize(
    ("place", "bad"),
    [(0, math.nan), (-32, 0.5), (-32, math.inf), (-24, 1.5), (-24, -0.5), (-16, -1.0), (-16, math.nan),
     (-8, -1.0), (-8, math.inf)],
)  # fmt: skip
def test_a_state_out_of_range_changes_nothing(place: int, bad: float) -> None:
    iterate = make_iterate()
    move(iterate, 1.0)
    before = state_of(iterate)
    odd = before.copy()
    odd[place : place + 8 or None] = np.array([bad]).view(np.uint8)
    with pytest.raises(UsageError, match="state must be finite and in range"):
        iterate.restore(odd)
    assert state_of(iterate).tobytes() == before.tobytes()


def test_a_state_of_another_size_or_type_is_refused() -> None:
    iterate = make_iterate()
    state = state_of(iterate)
    odds: list[Any] = [state[1:], state.view(np.int8), np.append(state, state)]
    for odd in odds:
        with pytest.raises(UsageError, match=f"state must be {len(state)} bytes"):
            iterate.restore(odd)
