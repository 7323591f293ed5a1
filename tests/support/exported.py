"""A table with all kinds of columns, and models of it that go elsewhere and must predict as they do here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.raw_partitions import encoding_of_columns

from asyncdmtl.cli.predict import Predictor
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.tasks import TaskModels

ROWS = 24
rng = np.random.default_rng(3)

# Numbers and categories with and without missing values, of two levels and of more, and categories that are
# numbers or truth values.
COLUMNS: dict[str, list[Any]] = {
    "age": [*rng.normal(40.0, 9.0, ROWS - 1), None],
    "ward": [*"xyz" * 7, "x", "y", None],
    "zip": ["7", "9", "10"] * 8,
    "two": ["no", "yes"] * 12,
    "one or none": [*"v" * 20, *[None] * 4],
    "truth": [True, False, True, True] * 6,
    "mass": rng.normal(2.0, 1.0, ROWS).tolist(),
}
TASKS = np.array(["a", "b"] * 12, dtype=object)
TARGETS: dict[str, Any] = {
    "squared": rng.normal(5.0, 1.0, ROWS).tolist(),
    "poisson": rng.poisson(3.0, ROWS).tolist(),
    "logistic": ["ill", "well"] * 12,
    "squared_hinge": [1, 2, 2] * 8,
}
LOSSES = tuple(TARGETS)


def saved_model(loss: str, standardise: bool = True, **columns: Any) -> SavedModel:
    """Models of the tasks `a` and `b`."""
    encoding = encoding_of_columns(COLUMNS | columns, TARGETS[loss], loss=loss, standardise=standardise)
    coef = 0.1 * np.random.default_rng(1).standard_normal((2, len(encoding.features)))
    return SavedModel(TaskModels(("a", "b"), coef, np.array([0.5, -0.1]), loss), encoding, None, "clinic")


def predicted(saved: SavedModel, columns: dict[str, list[Any]] | None = None) -> dict[str, NDArray[Any]]:
    """The columns that `asyncdmtl predict` would write, and the scores."""
    rows: dict[str, Any] = {
        name: np.array(values, dtype=np.object_ if name not in ("age", "mass") else np.float64)
        for name, values in (columns or COLUMNS).items()
    }
    X = saved.encoding.encode_rows(rows)
    scores = np.array(
        [saved.models.decision_function(x[None], task)[0] for x, task in zip(X, TASKS, strict=True)]
    )
    found = Predictor(saved).predictions(scores, proba=saved.models.loss == "logistic")
    return found | {"score": scores}
