from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_quick_settings

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.selection import critical_strength, select_strength
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train


def alike(tasks: int, rows: int, spread: float, seed: int = 0) -> list[Partition]:
    """Noisy regressions, two partitions each, whose true models differ by `spread`."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(6)
    partitions = []
    for t in range(tasks):
        w = common + spread * rng.standard_normal(6)
        X = rng.standard_normal((rows, 6))
        y = X @ w + t + rng.standard_normal(rows)
        cut = rows // 2
        partitions += [
            Partition(f"p{2 * t}", f"t{t}", X[:cut], y[:cut]),
            Partition(f"p{2 * t + 1}", f"t{t}", X[cut:], y[cut:]),
        ]
    return partitions


def test_tasks_that_are_alike_are_coupled_more() -> None:
    settings = make_quick_settings(coupling="mean-regularised", dtype="float64", rounds=150)
    near, far = (select_strength(alike(6, 12, spread), settings, folds=3).strength for spread in (0.05, 3.0))
    assert near > 10 * far


@pytest.mark.parametrize("coupling", ["nuclear", "l21"])
@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
def test_from_the_critical_strength_on_there_are_no_coefficients(coupling: str, intercept: str) -> None:
    partitions = alike(4, 10, 1.0)
    settings = make_quick_settings(coupling=coupling, dtype="float64", rounds=3000, intercept=intercept)
    critical = critical_strength(partitions, settings)
    for factor, zero in ((1.01, True), (0.9, False)):
        models = train(partitions, replace(settings, strength=factor * critical, update="statistics")).models
        assert (np.abs(models.coef_).max() < 1e-6) == zero


def test_strengths_that_are_given_are_all_tried_from_large_to_small() -> None:
    partitions = make_partitions(6, "logistic")
    told: list[float] = []
    selection = select_strength(
        partitions,
        make_quick_settings(loss="logistic", rounds=100),
        strengths=[0.01, 1.0, 0.1],
        folds=2,
        on_strength=lambda strength, _: told.append(strength),
    )
    assert told == selection.strengths.tolist() == [1.0, 0.1, 0.01]
    assert selection.losses.shape == (3, 2)
    assert selection.strength == selection.strengths[selection.losses.mean(axis=1).argmin()]
    assert selection.losses[0] == pytest.approx(np.log(2), rel=0.1)


def test_other_losses_choose_as_a_run_does_by_newtons_steps() -> None:
    settings = make_quick_settings(
        loss="logistic", coupling="mean-regularised", update="auto", dtype="float64"
    )
    told: list[float] = []
    partitions = make_partitions(6, "logistic")
    selection = select_strength(partitions, settings, folds=2, on_strength=lambda one, _: told.append(one))
    choosing = replace(settings, strength=None, folds=2, rounds=40, tolerance=1e-4)
    outcome = train(partitions, choosing).outcome
    assert outcome is not None
    assert told == selection.strengths.tolist()
    assert len(told) == 10
    assert selection.strength == outcome.strength
    np.testing.assert_allclose(selection.losses, outcome.selections["mean-regularised"].losses, rtol=1e-8)


@pytest.mark.parametrize("coupling", ["nuclear", "mean-regularised"])
def test_the_search_ends_when_it_gets_no_better(coupling: str) -> None:
    selection = select_strength(
        alike(6, 16, 0.3), make_quick_settings(coupling=coupling, rounds=300, dtype="float64")
    )
    means = selection.losses.mean(axis=1)
    assert 4 <= len(means) < 20
    assert means[:-3].min() <= means.min() * 1.001
    assert selection.strength == selection.strengths[means.argmin()]
    assert selection.strengths[1:] / selection.strengths[:-1] == pytest.approx(10 ** (-1 / 3))


def test_a_choice_without_effect_is_made_at_once() -> None:
    selection = select_strength(alike(2, 6, 1.0), make_quick_settings(coupling="none", rounds=50))
    assert selection.strengths.tolist() == [0.0]


def test_a_task_of_one_row_is_always_trained_on() -> None:
    partitions = [*alike(2, 6, 1.0), Partition("p9", "t9", np.ones((1, 6)), np.ones(1))]
    selection = select_strength(partitions, make_quick_settings(rounds=50), strengths=[0.1], folds=3)
    assert np.isfinite(selection.losses).all()


def test_weights_count_in_what_is_held_out() -> None:
    partitions = alike(3, 8, 1.0)
    weighted = [replace(p, weights=np.full(p.rows, 7.0)) for p in partitions]
    one, other = (select_strength(rows, make_quick_settings(rounds=50)) for rows in (partitions, weighted))
    assert one.losses == pytest.approx(other.losses, rel=1e-3)


def test_what_makes_no_sense_is_refused() -> None:
    settings = make_quick_settings()
    with pytest.raises(UsageError, match="folds must be at least 2"):
        select_strength(alike(2, 4, 1.0), settings, folds=1)
    for strengths in ([], [-1.0], [np.nan]):
        with pytest.raises(UsageError, match="strengths must be"):
            select_strength(alike(2, 4, 1.0), settings, strengths=strengths)
    with pytest.raises(DataError, match="two rows"):
        select_strength([Partition("p", "t", np.ones((1, 2)), np.ones(1))], settings)
