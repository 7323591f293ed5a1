"""Columns of `.npz` files, NumPy's archives of arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.files import Source, readable
from asyncdmtl.errors import DataError


def read_cells(
    source: Source, choose: Callable[[Sequence[str]], Mapping[str, int]], text: Collection[str]
) -> dict[str, Floats | list[Any]]:
    """Read the chosen columns. Columns of `X` have the names in `feature_names`, or `x0`, `x1`, ….

    Parameters
    ----------
    source : Source
    choose : callable
        Takes the names of all columns, and returns the names and positions of the columns to read.
    text : collection of str
        Columns of names or categories, whose whole numbers are not rounded to floats.

    Returns
    -------
    mapping of name to (rows,) float64 array, for a column of numbers, or list of values.

    Raises
    ------
    DataError
        The file cannot be read, or the shapes of its arrays do not fit each other.
    """
    with readable(source.name), source.open() as raw, np.load(raw, allow_pickle=False) as file:
        found = {
            name: file[name] for name in ("X", "y", "tasks", "sample_weight", "feature_names") if name in file
        }
    what = f"data file {source.name}"
    X = found.pop("X", np.empty(0))
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise DataError(what, "must have an array X (rows, features) of numbers", X.shape)
    labels = found.pop("feature_names", np.array([f"x{i}" for i in range(X.shape[1])]))
    if labels.shape != X.shape[1:]:
        raise DataError(what, f"must have {X.shape[1]} feature_names", labels.shape)
    if any(array.shape != X.shape[:1] for array in found.values()):
        rule = f"must have arrays of {len(X)} values, as X has rows"
        raise DataError(what, rule, {name: array.shape for name, array in found.items()})
    arrays = [*(X.astype(np.float64) if X.dtype.kind == "b" else X).T, *found.values()]
    chosen = choose([*map(str, labels), *found])
    return {
        name: arrays[i].astype(np.float64)
        if name not in text and arrays[i].dtype.kind in "iuf"
        else arrays[i].tolist()
        for name, i in chosen.items()
    }
