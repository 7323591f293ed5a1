from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.estimators.frames import Target, TaskFrames
from asyncdmtl.learning.tasks import TaskModels

X = np.random.default_rng(0).standard_normal((7, 3)) + 5.0
Y = np.arange(7.0)
LABELS = ["b", "a", "b", "b", "a", "b", "b"]


def frames(**changes: Any) -> TaskFrames:
    given: dict[str, Any] = {"loss": "squared", "intercept": "free", "standardise": False, "parts": 2}
    return TaskFrames(X, changes.pop("weights", None), LABELS, **given | changes)


def targets(made: TaskFrames, y: Any = Y) -> list[Target]:
    return [Target(name, t, y[made.rows[t]]) for t, name in enumerate(made.names.values())]


def test_rows_are_dealt_to_the_parts_in_turn() -> None:
    made = frames(intercept="none")
    partitions = made.partitions(targets(made))
    assert [p.id for p in partitions] == ["a/0", "a/1", "b/0", "b/1"]
    np.testing.assert_array_equal(partitions[2].X, X[[0, 3, 6]])
    np.testing.assert_array_equal(partitions[3].y, Y[[2, 5]])


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0, 0.5])])
def test_models_of_frames_score_rows_as_given(standardise: bool, intercept: str, weights: Any) -> None:
    made = frames(standardise=standardise, intercept=intercept, parts=1, weights=weights)
    partitions = made.partitions(targets(made))
    rng = np.random.default_rng(1)
    models = TaskModels(("b", "a"), rng.standard_normal((2, 3)), rng.standard_normal(2), "squared")
    coef, b = made.models_as_given(models, targets(made))
    for t, (partition, name) in enumerate(zip(partitions, "ab", strict=True)):
        own = made.rows[t]
        given = Y[own] - (X[own] @ coef[t] + b[t])
        trained = partition.y - models.decision_function(partition.X, name)
        np.testing.assert_allclose(given, trained, rtol=1e-12)
        if intercept == "free":
            np.testing.assert_allclose(
                np.average(partition.X, axis=0, weights=partition.weights), 0.0, atol=1e-14
            )
            assert np.average(partition.y, weights=partition.weights) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("parts", [0, 1.5, True, "2"])
def test_parts_must_be_a_number(parts: Any) -> None:
    with pytest.raises(UsageError, match="parts must be a whole number"):
        frames(parts=parts)
