"""How one column becomes features: numbers are shifted and scaled, text becomes indicators."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, to_numbers, to_text
from asyncdmtl.data.fields import read_fields, read_names
from asyncdmtl.errors import DataError, UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NumberColumn:
    """How a column of numbers is encoded: `(x − shift) / scale`, where a missing `x` is `impute`."""

    name: str
    impute: float
    shift: float
    scale: float

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name,)

    def encode(self, column: Column, out: Floats) -> None:
        """Write the encoded column (rows, 1) to `out`; DataError names a value that is no finite number."""
        numbers = to_numbers(column, f"column {self.name!r}")
        if np.isinf(numbers).any():
            raise DataError(f"column {self.name!r}", "must be finite", float(numbers[np.isinf(numbers)][0]))
        with np.errstate(over="ignore"):  # what overflows is refused by the partition
            out[:, 0] = (np.where(np.isnan(numbers), self.impute, numbers) - self.shift) / self.scale

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"impute": self.impute, "shift": self.shift, "scale": self.scale}


@dataclass(frozen=True)
class CategoryColumn:
    """How a column of text is encoded: an indicator for each of its levels, for two only of the second.

    The levels are `values`, in this order, and at last the missing value if `missing`.
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
        """Write the indicators (rows, len(features)) to `out`; a level that is not known has none."""
        levels: dict[str | None, int] = {value: i for i, value in enumerate(self.values)}
        if self.missing:
            levels[None] = len(levels)
        codes = np.array([levels.get(value, -1) for value in to_text(column).tolist()], dtype=np.intp)
        if unknown := int(np.count_nonzero(codes < 0)):
            log.warning(
                "column %r: %d of %d values were in no training row (such as %r) and encode as zeros",
                self.name,
                unknown,
                len(codes),
                to_text(column)[codes < 0][0],
            )
        codes -= len(levels) - len(self.features)
        rows = np.flatnonzero(codes >= 0)
        out[:] = 0.0
        out[rows, codes[rows]] = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"values": list(self.values), "missing": self.missing}


EncodedColumn: TypeAlias = NumberColumn | CategoryColumn


def read_column(name: str, content: Any) -> EncodedColumn:
    """Read what `as_dict` of either gave; UsageError if it makes no sense."""
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
