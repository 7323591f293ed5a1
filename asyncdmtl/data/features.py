"""The encoding of one column as features: numbers are shifted and scaled, text becomes indicators."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, to_numbers, to_text
from asyncdmtl.data.fields import read_fields, read_names
from asyncdmtl.data.reading import identity, normalised
from asyncdmtl.errors import DataError, UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NumberColumn:
    """The encoding of a column of numbers: `(x − shift) / scale`, where a missing `x` becomes `impute`."""

    name: str
    impute: float
    shift: float
    scale: float

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name,)

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"impute": self.impute, "shift": self.shift, "scale": self.scale}


@dataclass(frozen=True)
class CategoryColumn:
    """The encoding of a column of text: an indicator of each level, or of the second one if there are two.

    The levels are `values`, in this order, and after them the missing value if `missing`.
    """

    name: str
    values: tuple[str, ...]
    missing: bool

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the encoded columns: `column=value`, and `column missing`."""
        names = [f"{self.name}={value}" for value in self.values]
        names += [f"{self.name} missing"] if self.missing else []
        return tuple(names if len(names) > 2 else names[1:])

    def encode(self, column: Column, out: Floats) -> None:
        """Write the indicators (rows, len(features)) to `out`. An unknown level has indicators of 0."""
        levels: dict[str | None, int] = {value: i for i, value in enumerate(self.values)}
        if self.missing:
            levels[None] = len(levels)
        texts = to_text(column).tolist()
        for text in set(texts) - set(levels) - {None}:
            if (same := identity(normalised(text))) in levels:
                levels[text] = levels[same]
        codes = np.array([levels.get(text, -1) for text in texts], dtype=np.intp)
        if unknown := int(np.count_nonzero(codes < 0)):
            log.warning(
                "column %r: %d of %d values were in no training row (such as %r) and encode as zeros",
                self.name,
                unknown,
                len(codes),
                to_text(column)[codes < 0][0],
            )
        codes -= len(self.values) + self.missing - len(self.features)
        rows = np.flatnonzero(codes >= 0)
        out[:] = 0.0
        out[rows, codes[rows]] = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"values": list(self.values), "missing": self.missing}


EncodedColumn: TypeAlias = NumberColumn | CategoryColumn


def encode_numbers(encodings: Sequence[NumberColumn], columns: Mapping[str, Column]) -> Floats:
    """Encode columns of numbers together, since thousands of columns may have few rows each.

    Parameters
    ----------
    encodings : sequence of NumberColumn
        At least one.
    columns : mapping of name to (rows,) array

    Returns
    -------
    (len(encodings), rows) float64 array.

    Raises
    ------
    DataError
        Names a column with a value that is no finite number.
    """
    matrix = np.stack([to_numbers(columns[own.name], f"column {own.name!r}") for own in encodings])
    if (infinite := np.isinf(matrix)).any():
        at = int(infinite.any(axis=1).argmax())
        value = float(matrix[at][infinite[at]][0])
        raise DataError(f"column {encodings[at].name!r}", "must be finite", value)
    impute, shift, scale = np.array([(own.impute, own.shift, own.scale) for own in encodings]).T[..., None]
    with np.errstate(over="ignore"):  # `Partition` later refuses infinite numbers
        encoded: Floats = (np.where(np.isnan(matrix), impute, matrix) - shift) / scale
    return encoded


def read_column(name: str, content: Any) -> EncodedColumn:
    """Read what `as_dict` of either kind returned. UsageError if it is malformed."""
    what = f"encoding of column {name!r}"
    if isinstance(content, Mapping) and "values" in content:
        values, missing = read_fields(what, content, values=list, missing=bool)
        names = read_names(f"values of {what}", values)
        if len(names) + missing < 2:
            raise UsageError(what, "must have two levels", content)
        return CategoryColumn(name, names, missing)
    impute, shift, scale = read_fields(what, content, impute=float, shift=float, scale=float)
    if scale <= 0.0:
        raise UsageError(f"scale of {what}", "must be positive", scale)
    return NumberColumn(name, impute, shift, scale)
