"""scikit-learn's own checks of estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from asyncdmtl import (
    CodedMultiTaskClassifier,
    CodedMultiTaskClassifierCV,
    CodedMultiTaskRegressor,
    CodedMultiTaskRegressorCV,
)

# Few rounds and few λ, because there are hundreds of fits.
ESTIMATORS = [
    CodedMultiTaskRegressor(tol=1e-3),
    CodedMultiTaskClassifier(tol=1e-2),
    CodedMultiTaskRegressorCV(tol=1e-2, strengths=[0.1], cv=2),
    CodedMultiTaskClassifierCV(tol=1e-1, strengths=[0.1], cv=2),
]


def cannot_apply(estimator: Any) -> dict[str, str]:
    if not hasattr(estimator, "cv"):
        return {}
    reason = (
        "cv is a number of folds, dealt within each task: the splits that this check wants to set cannot be"
    )
    return {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in ("dense", "sparse")}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=cannot_apply)  # type: ignore[untyped-decorator]
def test_what_scikit_learn_asks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
