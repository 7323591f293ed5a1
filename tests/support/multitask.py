"""Rows of a few tasks whose models lie near one direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats


def make_rows(
    tasks: tuple[Any, ...] = ("a", "b", "c"), rows: int = 24, features: int = 4, seed: int = 0
) -> tuple[Floats, Floats, list[Any]]:
    """`X`, real targets, and the task of each row, in mixed order."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows * len(tasks), features)) + rng.standard_normal(features)
    shared = rng.standard_normal(features)
    W = shared + 0.3 * rng.standard_normal((len(tasks), features))
    codes = rng.permutation(np.repeat(np.arange(len(tasks)), rows))
    y = (X * W[codes]).sum(axis=1) + codes + 0.3 * rng.standard_normal(len(X))
    return X, y, [tasks[t] for t in codes]
