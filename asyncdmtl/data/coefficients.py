"""Coefficients of saved models in the units of the columns that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import NumberColumn
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels

INTERCEPT = "(intercept)"
"""The name of the intercept among the names of features."""


def in_original_units(models: TaskModels, encoding: Encoding) -> tuple[Floats, Floats]:
    """Coefficients (T, F) and intercepts (T,), float64, for columns and targets as they stand in the data.

    With features `(x − shift) / scale` and a target shifted by `offset`, a coefficient is `w / scale`, and
    the intercept is `b + offset − Σ w·shift / scale`.
    """
    coef = models.coef_.astype(np.float64)
    shifts, scales = np.zeros(coef.shape[1]), np.ones(coef.shape[1])
    at = 0
    for column in encoding.columns:
        if isinstance(column, NumberColumn):
            shifts[at], scales[at] = column.shift, column.scale
        at += len(column.features)
    coef = coef / scales
    return coef, models.intercept_.astype(np.float64) + encoding.offset - (coef * shifts).sum(1)


def coefficient_table(models: Sequence[Any], features: Sequence[Any], coef: Floats, intercept: Floats) -> Any:
    """A pandas DataFrame (1 + F, M): a row for the intercept and for each feature, a column for each model.

    Parameters
    ----------
    models : sequence of M labels
        Tuples of a task and a class become columns of two levels.
    features : sequence of F labels
    coef : (M, F) float64 array
    intercept : (M,) float64 array

    Raises
    ------
    UsageError
        pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("coefficients", "is a DataFrame, which needs: pip install pandas", None) from error
    return pd.DataFrame(
        np.column_stack([intercept, coef]).T,
        index=pd.Index([INTERCEPT, *features], dtype=object),
        columns=pd.Index(list(models), tupleize_cols=True),
    )
