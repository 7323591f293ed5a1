"""Frozen results of data: recipes, tables, surveys and encodings, and models of the estimators.

Digests of rows and the encoding are on the wire, so that they must not change from one version to the next.
"""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from frozen_numbers import fixed_floats, make_settings
from frozen_wire import sha

import asyncdmtl
from asyncdmtl.data.loading import load, load_stored
from asyncdmtl.estimators import (
    CodedMultiTaskClassifier,
    CodedMultiTaskClassifierCV,
    CodedMultiTaskRegressor,
    CodedMultiTaskRegressorCV,
)

Frozen = dict[str, Any]

RECIPES = (
    "digits",
    "digits:rows=8",
    "digit-pairs",
    "synthetic",
    "synthetic:tasks=3,rows=7,features=11,rank=2",
)

# A table with missing numbers, categories, a constant column, labels, and quoted names.
TABLE = "site,age,ward,always,dose,ill\n" + "".join(
    f"{'north' if n % 3 else 'south'},{'' if n % 7 == 3 else 20 + (n * 13) % 50},"
    f"{'xyz'[n % 3] if n % 5 else ''},1,{(n * 29) % 17 / 4},{'yes' if (n * 11) % 4 > 1 else 'no'}\n"
    for n in range(40)
)


def frozen_data() -> Frozen:
    """Partitions of recipes and of a table, with their declarations and their encoding."""
    frozen = {}
    for recipe in RECIPES:
        for seed in (0, 3):
            loaded = load({"data": recipe, "seed": seed})
            frozen[f"{recipe}, seed {seed}"] = {
                "metric": loaded.metric,
                "defaults": {name: _plain(value) for name, value in loaded.defaults.items()},
                "partitions": _partitions(loaded.stored),
                "test": _rows(loaded.test),
            }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        file.write_text(TABLE)
        for loss, target in (("logistic", "ill"), ("squared", "dose")):
            frozen[f"table, {loss}"] = _table(file, loss, target)
    return frozen


def _table(file: Path, loss: str, target: str) -> Frozen:
    given: dict[str, Any] = {
        "data": str(file), "task": "site", "target": target, "features": None, "omit": "always",
        "weight": None, "test_fraction": 0.2, "parts": 2, "seed": 1,
    }  # fmt: skip
    loaded = load(given)
    prepared = loaded.prepared(make_settings(loss=loss, standardise=True))
    whole = load_stored({**given, "test_fraction": None, "parts": None}, None)
    return {
        "declarations": [
            [part.id, part.task, part.digest.hex(), part.rows, part.survey]
            for part in (stored.declaration() for stored in (*loaded.stored, *whole))
        ],
        "encoding": prepared.encoding.as_dict(),
        "partitions": _partitions(prepared.partitions),
        "test": _rows(prepared.test),
    }


def _partitions(partitions: Any) -> Frozen:
    return {
        p.id: f"{p.task}, {p.rows}, {p.declaration().digest.hex()}, {sha(p.X, p.y)[:16]}" for p in partitions
    }


def _rows(test: Any) -> Frozen:
    return {task: sha(X, y) for task, (X, y) in test.items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else repr(value)


def frozen_estimators() -> Frozen:
    """The models of the estimators, trained in one process."""
    X, tasks = fixed_floats("X", 60, 4), np.repeat(["a", "b", "c"], 20)
    y = X @ fixed_floats("w", 4) + 0.3 * fixed_floats("noise", 60)
    labels = np.where(y > 0.2, "yes", "no")
    kinds = np.digitize(y, [-1.0, 1.0])
    models = {
        "regressor": (CodedMultiTaskRegressor(max_iter=20), y),
        "regressor, l21, standardised": (
            CodedMultiTaskRegressor(max_iter=20, coupling="l21", standardise=True), y
        ),
        "regressor, cross-validation": (CodedMultiTaskRegressorCV(max_iter=20, cv=2), y),
        "classifier": (CodedMultiTaskClassifier(max_iter=20), labels),
        "classifier, three classes": (CodedMultiTaskClassifier(max_iter=20), kinds),
        "classifier, cross-validation": (CodedMultiTaskClassifierCV(max_iter=20, cv=2), labels),
    }  # fmt: skip
    frozen = {}
    for name, (model, target) in models.items():
        fitted = model.set_params(tol=0.0, update="gradient").fit(X, target, tasks)
        frozen[name] = {
            "fitted": sorted(name for name in vars(fitted) if name.endswith("_")),
            "coef": sha(fitted.coef_, fitted.intercept_),
            "predicted": sha(np.asarray(fitted.predict(X, tasks)).astype(str)),
        }
    return frozen


def frozen_names() -> Frozen:
    """Public names of the package, and the parameters of its functions and classes, with plain defaults."""
    return {name: [_argument(p) for p in _parameters(name)] for name in asyncdmtl.__all__}


def _parameters(name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(getattr(asyncdmtl, name)).parameters.values())
    except ValueError:  # an exception whose constructor is Python's own
        return []


def _argument(parameter: inspect.Parameter) -> str:
    star = "*, " if parameter.kind is inspect.Parameter.KEYWORD_ONLY else ""
    empty = parameter.default is inspect.Parameter.empty
    return f"{star}{parameter.name}" + ("" if empty else f"={_plain(parameter.default)!r}")
