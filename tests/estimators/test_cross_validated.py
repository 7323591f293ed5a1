from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.multitask import make_rows

from asyncdmtl import (
    CodedMultiTaskClassifier,
    CodedMultiTaskClassifierCV,
    CodedMultiTaskRegressor,
    CodedMultiTaskRegressorCV,
)
from asyncdmtl.errors import UsageError

X, Y, TASKS = make_rows()
# Targets with noise, so that no hyperplane separates the classes.
NOISY = Y + np.random.default_rng(1).standard_normal(len(Y)) * Y.std()
LABELS = np.where(np.median(NOISY) < NOISY, "yes", "no")


def test_the_defaults_are_those_of_estimators_that_do_not_choose() -> None:
    pairs: list[tuple[Any, Any]] = [
        (CodedMultiTaskRegressorCV, CodedMultiTaskRegressor),
        (CodedMultiTaskClassifierCV, CodedMultiTaskClassifier),
    ]
    for chooses, plain in pairs:
        own = {"strengths": None, "cv": 5, "strength": None}
        assert chooses().get_params() | own == plain().get_params() | own


@pytest.mark.filterwarnings("ignore:All coefficients are 0")  # at the largest λ that is tried
@pytest.mark.parametrize("kind", [CodedMultiTaskRegressorCV, CodedMultiTaskClassifierCV])
def test_strengths_are_chosen_by_cross_validation(kind: Any) -> None:
    y = Y if kind is CodedMultiTaskRegressorCV else LABELS
    model = kind(strengths=[100.0, 0.05, 1.0], cv=3).fit(X, y, TASKS)
    results = model.cv_results_
    assert results["param_strength"].tolist() == [100.0, 1.0, 0.05]
    best = results["mean_test_loss"].argmin()
    assert model.strength_ == results["param_strength"][best]
    assert results["rank_test_loss"][best] == 1
    # With the two largest strengths, the classifiers have no coefficients, so that both are equally good.
    assert best > 0 or kind is CodedMultiTaskClassifierCV
    assert len(pd.DataFrame(results).columns) == 3 + 4
    plain_kind: Any = CodedMultiTaskRegressor if y is Y else CodedMultiTaskClassifier
    plain = plain_kind(strength=model.strength_).fit(X, y, TASKS)
    assert plain.coef_.tobytes() == model.coef_.tobytes()


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_the_kind_of_intercept_is_chosen_by_cross_validation(shift: float) -> None:
    # Few rows for each task: intercepts are better known together if they are equal, and not if they differ.
    rng, tasks = np.random.default_rng(0), np.repeat(np.arange(6), 3)
    X = rng.standard_normal((18, 1))
    y = X[:, 0] + 1.0 + shift * tasks + rng.standard_normal(18)
    given: dict[str, Any] = {"coupling": "mean-regularised", "cv": 3, "strengths": [1.0]}
    model = CodedMultiTaskRegressorCV(**given, fit_intercept="auto").fit(X, y, tasks)
    assert model.fit_intercept_ == ("penalised" if shift == 0.0 else True)
    alone = CodedMultiTaskRegressorCV(**given, fit_intercept=model.fit_intercept_).fit(X, y, tasks)
    assert alone.coef_.tobytes() == model.coef_.tobytes()
    assert alone.intercept_.tobytes() == model.intercept_.tobytes()
    with pytest.raises(UsageError, match="fit_intercept"):
        CodedMultiTaskRegressorCV(fit_intercept="auto", cluster="127.0.0.1:7000").fit(X, y, tasks)
    with pytest.raises(UsageError, match="fit_intercept"):
        CodedMultiTaskRegressor(fit_intercept="auto").fit(X, y, tasks)


def test_a_path_is_found_where_none_is_given() -> None:
    model = CodedMultiTaskRegressorCV(cv=2).fit(X, Y, TASKS)
    assert len(model.cv_results_["param_strength"]) > 3
    assert model.score(X, Y, TASKS) > 0.9
