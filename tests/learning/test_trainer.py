from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.selection import critical_strength
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train


def make_trainer(partitions: Sequence[Partition], settings: Settings) -> Trainer:
    infos = [p.info(settings) for p in partitions]
    return Trainer(Problem(settings, infos), dict(enumerate(partitions)))


def updates_of(trainer: Trainer) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    out = np.empty((len(trainer.own), trainer.problem.d), trainer.problem.dtype)
    trainer.local_updates(out)
    return out


def test_a_step_without_coupling_goes_down_the_gradient() -> None:
    (partition,) = make_partitions(1, "squared", features=3)
    settings = make_settings(coupling="none", intercept="none", dtype="float64", accelerated=False)
    trainer = make_trainer([partition], settings)
    trainer.warm_up()
    Z = updates_of(trainer)
    trainer.step(Z)
    assert pytest.approx(-trainer.problem.step_lengths[0] * Z) == trainer.W
    assert trainer.outcome is None


def test_a_step_that_began_in_advance_ends_with_the_same_bits() -> None:
    partitions = make_partitions(6, "squared")
    settings = make_settings(coupling="l21")
    one, other = make_trainer(partitions, settings), make_trainer(partitions, settings)
    with single_threaded():
        for _ in range(3):
            Z = updates_of(one)[::2]
            assert (updates_of(other)[::2] == Z).all()

            def columns(cols: slice, Z: Any = Z) -> list[Any]:
                return [z[cols] for z in Z]

            other.advance(columns, lambda cols: True)
            one.step(Z)
            other.step(columns)
    assert one.W.tobytes() == other.W.tobytes()
    assert one.residual == other.residual


def test_the_objective_is_loss_and_penalty_where_updates_are_computed() -> None:
    partitions = make_partitions(4, "squared")
    trainer = make_trainer(partitions, make_settings(dtype="float64", intercept="none", strength=0.3))
    W = np.random.default_rng(0).standard_normal(trainer.W.shape)
    trainer.place(range(2), W)
    loss = 0.0
    for t in range(2):
        X = np.concatenate([partitions[2 * t].X, partitions[2 * t + 1].X])
        y = np.concatenate([partitions[2 * t].y, partitions[2 * t + 1].y])
        loss += 0.5 * float(((X @ W[t] - y) ** 2).mean())
    assert trainer.penalty() == pytest.approx(0.3 * np.linalg.norm(W, "nuc"))
    assert trainer.objective(trainer.losses()) == pytest.approx(loss + trainer.penalty())


def test_updates_travel_as_the_problem_says() -> None:
    trainer = make_trainer(make_partitions(2, "squared"), make_settings(compression="float16"))
    wire = trainer.problem.wire
    packed = np.empty((2, wire.length), wire.dtype)
    losses = trainer.packed_updates(packed)
    assert (losses == trainer.losses()).all()
    expected = updates_of(trainer)
    unpacked = [trainer.unpacked(n, row) for n, row in enumerate(packed)]
    assert np.stack(unpacked) == pytest.approx(expected, rel=1e-2, abs=1e-2)


def test_models_without_intercept_have_zeros_for_it() -> None:
    trainer = make_trainer(make_partitions(2, "squared"), make_settings(intercept="none"))
    trainer.step(updates_of(trainer)[:1])
    models = trainer.models()
    assert (models.coef_ == trainer.W).all()
    assert models.intercept_.tolist() == [0.0]


def test_trainer_refuses_partitions_that_were_not_declared_so() -> None:
    partitions = make_partitions(3, "squared")
    problem = make_trainer(partitions, make_settings()).problem
    p = partitions[0]
    for stored in ({1: p}, {7: p}, {0: Partition(p.id, p.task, p.X[1:], p.y[1:])}):
        with pytest.raises(DataError):
            Trainer(problem, stored)
    with pytest.raises(UsageError, match="out must have"):
        Trainer(problem, {0: p}).local_updates(np.empty((1, 3)))


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("intercept", [True, False])
def test_aggregated_updates_are_the_gradient_of_the_mean_loss(loss: str, intercept: bool) -> None:
    trainer = make_trainer(
        make_partitions(6, loss),
        make_settings(loss=loss, intercept="free" if intercept else "none", dtype="float64", coupling="none"),
    )
    problem = trainer.problem
    models = np.random.default_rng(1).standard_normal(trainer.W.shape)
    trainer.place(range(len(models)), models)
    V = updates_of(trainer)
    Z = np.array([problem.aggregate(t, V[list(S)]) for t, S in enumerate(problem.partitions_of)])
    h = 1e-6
    for t, j in np.ndindex(models.shape):
        objectives = []
        for shift in (h, -h):
            shifted = models[t].copy()
            shifted[j] += shift
            trainer.place([t], shifted)
            objectives.append(trainer.objective(trainer.losses()))
        trainer.place([t], models[t])
        assert Z[t, j] == pytest.approx((objectives[0] - objectives[1]) / (2 * h), abs=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_updates_have_the_same_bits_whatever_else_is_stored(dtype: str) -> None:
    partitions = make_partitions(6, "logistic", features=37)
    everything = make_trainer(partitions, make_settings(loss="logistic", dtype=dtype))
    W = np.random.default_rng(2).standard_normal(everything.W.shape)
    everything.place(range(len(everything.W)), W)
    with single_threaded():
        expected = updates_of(everything)
        for stored in ({5, 2}, {0}, {1, 2, 3, 4}, set[int]()):
            some = Trainer(everything.problem, {n: partitions[n] for n in stored})
            some.place(range(len(some.W)), W)
            assert some.own == tuple(sorted(stored))
            assert updates_of(some).tobytes() == expected[list(some.own)].tobytes()


def test_models_do_not_follow_the_trainer() -> None:
    trainer = make_trainer(make_partitions(2, "squared"), make_settings())
    models = trainer.models()
    trainer.step(np.ones_like(trainer.W))
    assert (models.coef_ == 0).all()
    assert (models.intercept_ == 0).all()


def test_models_that_outgrow_their_dtype_are_an_error() -> None:
    trainer = make_trainer(make_partitions(2, "squared"), make_settings())
    for bad in (np.inf, np.nan):
        with pytest.raises(DataError, match="models must stay finite in float32"):
            trainer.step(np.full_like(trainer.W, bad))
    huge = [Partition("p0", "t", [[1e-30]], [1e30])]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="must stay finite"):
        train(huge, make_settings(coupling="none", intercept="none", rounds=2))


@pytest.mark.parametrize("accelerated", [True, False])
def test_a_state_is_all_that_another_needs_to_go_on(accelerated: bool) -> None:
    partitions = make_partitions(6, "squared")
    settings = make_settings(accelerated=accelerated)
    first, second = make_trainer(partitions, settings), make_trainer(partitions, settings)

    def step(trainer: Trainer) -> None:
        V = updates_of(trainer)
        trainer.step(
            np.array(
                [
                    trainer.problem.aggregate(t, V[list(S)])
                    for t, S in enumerate(trainer.problem.partitions_of)
                ]
            )
        )

    with single_threaded():
        for _ in range(5):
            step(first)
        state = first.state()
        assert state.shape == (first.problem.state_bytes,)
        second.restore(state)
        for _ in range(5):
            step(first)
            step(second)
    assert first.state().tobytes() == second.state().tobytes()
    assert first.residual == second.residual < math.inf


def test_a_state_that_makes_no_sense_is_refused() -> None:
    trainer = make_trainer(make_partitions(6, "squared"), make_settings())
    state = trainer.state()
    with pytest.raises(UsageError, match="state must be"):
        trainer.restore(state[1:])
    for at, bad in ((0, np.float32(np.nan)), (-32, 0.5), (-24, 1.5), (-16, -1.0), (-8, np.inf)):
        odd = state.copy()
        raw = np.array([bad]).view(np.uint8)
        odd[at : at + len(raw) or None] = raw
        with pytest.raises(UsageError, match="state must be finite"):
            trainer.restore(odd)


@pytest.mark.parametrize("coupling", ["l21", "nuclear", "sparse-low-rank"])
@pytest.mark.parametrize("update", ["gradient", "statistics", "newton", "quasi-newton", "model"])
def test_trainers_whose_coefficients_are_0_know_the_critical_strength(coupling: str, update: str) -> None:
    partitions = make_partitions(6, "squared", features=3)
    settings = make_settings(
        coupling=coupling,
        strength=1e6,
        update=update,
        dtype="float64",
        rounds=300,
        tolerance=1e-9,
        arithmetic="fast",
    )
    known: list[float | None] = []
    train(partitions, settings, on_round=lambda round_, trainer: known.append(trainer.critical_strength))
    assert known[-1] == pytest.approx(critical_strength(partitions, settings), rel=1e-4)
    train(
        partitions,
        replace(settings, strength=0.5 * (known[-1] or 0.0)),
        on_round=lambda round_, trainer: known.append(trainer.critical_strength),
    )
    assert known[-1] is None


def test_a_state_from_elsewhere_has_no_critical_strength() -> None:
    settings = make_settings(coupling="l21", strength=1e6)
    trainer = make_trainer(make_partitions(6, "squared"), settings)
    trainer.step([update for n, update in enumerate(updates_of(trainer)) if n % 2])
    assert trainer.critical_strength
    trainer.restore(trainer.state())
    assert trainer.critical_strength is None
