"""The tables that `bench_rounds.py` measures: real ones of scikit-learn, and two with rare labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from asyncdmtl.arrays import Floats


class Tasks(NamedTuple):
    """Rows `X` (n, features) with targets `y` and tasks, (n,) each."""

    X: Floats
    y: Floats
    task: Floats


def write_table(rows: Tasks, path: Path) -> None:
    """Write rows as a CSV file with the columns `task`, `target` and `x0`, `x1`, …"""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "target", *(f"x{f}" for f in range(rows.X.shape[1]))])
        for task, y, x in zip(rows.task, rows.y, rows.X.tolist(), strict=True):
            writer.writerow([f"t{int(task)}", repr(float(y)), *map(repr, x)])


def diabetes() -> Tasks:
    """Progression of diabetes; the tasks are eight ranges of age."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    return Tasks(X[:, 1:], y, _ranges(X[:, 0], 8))


def wine() -> Tasks:
    """Proline in wines; the tasks are the three cultivars."""
    from sklearn.datasets import load_wine

    X, cultivar = load_wine(return_X_y=True)
    return Tasks(X[:, :-1], X[:, -1], cultivar)


def pixels() -> Tasks:
    """A pixel in the middle of an image of a digit, from the other 63; the tasks are the ten digits."""
    from sklearn.datasets import load_digits

    X, digit = load_digits(return_X_y=True)
    return Tasks(np.delete(X, 36, axis=1), X[:, 36], digit)


def digits() -> Tasks:
    """Whether a digit is even, from an image of 64 pixels; the tasks are ten groups of writers."""
    from sklearn.datasets import load_digits

    X, digit = load_digits(return_X_y=True)
    groups = np.minimum(np.arange(len(X)) // 180, 9)
    return Tasks(X, (digit % 2 == 0).astype(np.float64), groups.astype(np.float64))


def cancer() -> Tasks:
    """Whether a tumour is benign; the tasks are eight ranges of its texture."""
    from sklearn.datasets import load_breast_cancer

    X, benign = load_breast_cancer(return_X_y=True)
    return Tasks(X, benign, _ranges(X[:, 1], 8))


def rare_labels(features: int = 9, tasks: int = 29) -> Tasks:
    """Synthetic: tasks of 50 to 400 rows, some 6 % of them positive, at least one in each task."""
    rng = np.random.default_rng(0)
    shared = 1.8 * rng.normal(size=features) / np.sqrt(features)
    X, y, owners = [], [], []
    for t in range(tasks):
        rows = int(rng.integers(50, 400))
        x = rng.normal(size=(rows, features))
        scores = x @ (shared + 0.9 * rng.normal(size=features) / np.sqrt(features)) - 4.0
        labels = (scores + rng.logistic(size=rows) > 0.0).astype(np.float64)
        labels[np.argmax(scores)] = 1.0
        X.append(x)
        y.append(labels)
        owners.append(np.full(rows, t))
    return Tasks(np.concatenate(X), np.concatenate(y), np.concatenate(owners))


TABLES: Mapping[str, Callable[[], Tasks]] = MappingProxyType(
    {
        "diabetes": diabetes,
        "wine": wine,
        "pixels": pixels,
        "digits": digits,
        "cancer": cancer,
        "rare": rare_labels,
        "rare, wide": lambda: rare_labels(features=64),
    }
)
"""By the name in the results. The first five are real."""


def _ranges(values: Floats, count: int) -> Floats:
    """The index of the quantile range, of `count`, that each value is in."""
    quantiles = np.quantile(values, np.arange(1, count) / count)
    return np.searchsorted(quantiles, values, side="right").astype(np.float64)
