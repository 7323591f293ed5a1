"""Steps that are computed block by block, in advance or not, equal steps on whole matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DataError
from asyncdmtl.learning import step
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.step import ProximalStep
from asyncdmtl.learning.trainer import Trainer

FEATURES = 700


def problem(**changes: Any) -> Problem:
    edges = [("t0", "t1", 1.0)] if changes.get("coupling") == "graph" else []
    settings = make_settings(dtype="float64", edges=tuple(edges), **changes)
    infos = [p.info(settings) for p in make_partitions(6, "squared", features=FEATURES)]
    return Problem(settings, infos)


def updates(made: Problem, count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((len(made.tasks), made.d)).astype(made.dtype) for _ in range(count)]


def steps(made: Problem, count: int = 6, **changes: Any) -> Trainer:
    at = Trainer(made, {})
    for Z in updates(made, count):
        at.step(lambda cols, Z=Z: list(Z[:, cols]))  # type: ignore[misc]
    return at


@pytest.mark.parametrize("coupling", [name for name in COUPLINGS if name != "sparse-low-rank"])
@pytest.mark.parametrize("intercept", ["free", "none"])
def test_blocks_do_not_change_the_models(
    monkeypatch: pytest.MonkeyPatch, coupling: str, intercept: str
) -> None:
    made = problem(coupling=coupling, intercept=intercept, strength=0.3)
    whole = steps(made)
    monkeypatch.setattr(step, "BLOCK_NUMBERS", 150)
    blocked = steps(made)
    np.testing.assert_allclose(blocked.W, whole.W, rtol=1e-9, atol=1e-12)
    assert blocked.residual == pytest.approx(whole.residual, rel=1e-9)
    assert blocked.penalty() == pytest.approx(whole.penalty(), rel=1e-9)


@pytest.mark.parametrize("coupling", ["l21", "nuclear", "clustered"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_working_ahead_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, coupling: str, dtype: str
) -> None:
    monkeypatch.setattr(step, "BLOCK_NUMBERS", 150)
    settings = make_settings(dtype=dtype, coupling=coupling, strength=0.3)
    made = Problem(settings, [p.info(settings) for p in make_partitions(6, "squared", features=FEATURES)])
    plain, ahead = steps(made), Trainer(made, {})
    for Z in updates(made, 6):
        there = np.full_like(Z, np.nan)

        def columns(cols: slice, there: Any = there) -> Any:
            return list(there[:, cols])

        for stop in (100, 333, 650):
            there[:, :stop] = Z[:, :stop]
            ahead.advance(columns, lambda cols, stop=stop: cols.stop <= stop)  # type: ignore[misc]
        there[:] = Z
        ahead.step(columns)
    assert ahead.W.tobytes() == plain.W.tobytes()
    assert ahead.Y.tobytes() == plain.Y.tobytes()
    assert ahead.residual == plain.residual
    assert ahead.state().tobytes() == plain.state().tobytes()


def test_what_was_computed_of_a_step_that_was_not_taken_is_forgotten() -> None:
    made = problem(coupling="l21", strength=0.3)
    Z, other = updates(made, 2)
    at = Iterate(made)
    following = ProximalStep(made, at)
    following.advance(lambda cols: list(other[:, cols]), lambda cols: True)
    assert not at.W.any()
    following.forget()
    following.take(lambda cols: list(Z[:, cols]))
    assert at.W.tobytes() == steps(made, 1).W.tobytes()


@pytest.mark.parametrize("coupling", ["l21", "nuclear", "none", "mean-regularised"])
def test_models_that_outgrow_the_dtype_are_refused_and_left_as_they_were(
    monkeypatch: pytest.MonkeyPatch, coupling: str
) -> None:
    monkeypatch.setattr(step, "BLOCK_NUMBERS", 150)
    settings = make_settings(dtype="float32", coupling=coupling, strength=0.3)
    made = Problem(settings, [p.info(settings) for p in make_partitions(6, "squared", features=FEATURES)])
    at = steps(made)
    before = at.state().tobytes()
    for bad in (3e38, np.inf, np.nan):
        Z = updates(made, 1)[0]
        Z[1, 600] = np.float32(bad)
        scaled = np.float32(1e3) if bad == 3e38 else np.float32(1)
        with (
            np.errstate(over="ignore"),
            pytest.raises(DataError, match="models must stay finite in float32"),
        ):
            at.step(lambda cols, Z=Z * scaled: list(Z[:, cols]))  # type: ignore[misc]
        assert at.state().tobytes() == before


def test_large_models_whose_squares_are_no_float32_are_fine() -> None:
    settings = make_settings(dtype="float32", coupling="none", intercept="none", accelerated=False)
    made = Problem(settings, [p.info(settings) for p in make_partitions(6, "squared", features=FEATURES)])
    at = Trainer(made, {})
    Z = np.full((len(made.tasks), made.d), -1e20 / made.step_lengths[0], np.float32)
    at.step(lambda cols: list(Z[:, cols]))
    assert pytest.approx(1e20, rel=1e-6) == at.W


def test_the_momentum_is_fistas() -> None:
    made = problem(coupling="none", intercept="none")
    at, Z, t = Trainer(made, {}), updates(made, 1)[0], 1.0
    for _ in range(5):
        before = at.W.copy()
        # All steps go in one direction, so that none is uphill.
        at.step(lambda cols: list(Z[:, cols]))
        t, last = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * t * t)), t
        np.testing.assert_allclose(at.Y, at.W + (last - 1.0) / t * (at.W - before), rtol=1e-12)
