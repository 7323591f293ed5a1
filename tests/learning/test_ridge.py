from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncdmtl.learning import baseline
from asyncdmtl.learning.ridge import alone_and_together
from asyncdmtl.learning.statistics import Layout, TaskStatistics, statistics
from asyncdmtl.learning.tasks import Partition


def tasks(rows: int, features: int, noise: float = 1.0) -> list[Partition]:
    rng = np.random.default_rng(5)
    made = []
    for t in range(4):
        X = rng.standard_normal((rows, features)) + 2.0
        y = X @ np.arange(features) + t + noise * rng.standard_normal(rows)
        made.append(Partition(f"p{t}", f"t{t}", X, y))
    return made


def models(partitions: list[Partition], **options: Any) -> Any:
    layout = Layout(partitions[0].features)
    found = TaskStatistics.of([statistics(p, layout, 0) for p in partitions], layout)
    return alone_and_together(found, [p.rows for p in partitions], **options)


@pytest.mark.parametrize("intercept", [True, False])
def test_models_are_those_that_rows_give(intercept: bool) -> None:
    partitions = tasks(60, 4)
    made = models(partitions, intercept=intercept)
    alone = baseline.single_task(partitions, "squared", intercept=intercept)
    one = baseline.pooled(partitions, "squared", intercept=intercept)
    np.testing.assert_allclose(made[:-1, :-1], alone.coef_, atol=0.05)
    np.testing.assert_allclose(made[:-1, -1], alone.intercept_, atol=0.2)
    np.testing.assert_allclose(made[-1, :-1], one.coef_[0], atol=0.01)
    assert intercept or not made[:, -1].any()


def test_pure_noise_is_shrunk_away() -> None:
    rng = np.random.default_rng(1)
    parts = [
        Partition(f"p{t}", f"t{t}", rng.standard_normal((30, 5)), rng.standard_normal(30)) for t in range(3)
    ]
    assert np.abs(models(parts, intercept=True)[:, :-1]).max() < 0.2


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_have_finite_models(rows: int) -> None:
    assert np.isfinite(models(tasks(rows, 6), intercept=True)).all()
    same = [Partition("p", "t", np.ones((rows, 2)), np.ones(rows))]
    assert models(same, intercept=True)[:, -1] == pytest.approx(1.0)
