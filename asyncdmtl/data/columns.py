"""Columns of a table, as plain arrays: numbers with NaN where a value is missing, or text with None."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError

Texts: TypeAlias = NDArray[np.object_]
Column: TypeAlias = Floats | Texts

_KINDS = "must be all numbers, all text, or all true and false (--omit can leave it out)"


def as_column(values: ArrayLike | Sequence[object], what: str) -> Column:
    """A column from values of one kind: float64 with NaN where missing, or an object array of str and None.

    Parameters
    ----------
    values : (rows,) array-like
        Numbers; or text; or True and False, which become the text "True" and "False". None and NaN are
        missing values. If all values are missing, the column is one of numbers.
    what : str
        Names the column in errors.

    Raises
    ------
    DataError
        The values have more than one dimension, or another kind (dates, lists, text among numbers).
    """
    # From a list, NumPy would turn numbers among text into text.
    array = np.asarray(values, dtype=None if hasattr(values, "__array__") else np.object_)
    if array.ndim != 1:
        raise DataError(what, "must have one dimension, as shape", array.shape)
    if array.dtype.kind in "iuf":
        return _numbers(array)
    if array.dtype.kind == "b":
        return text_column([str(value) for value in array.tolist()])
    if array.dtype.kind not in "OTU":
        raise DataError(what, _KINDS, array[:1].tolist())
    return _from_objects(array.tolist(), what)


def text_column(values: Sequence[str | None]) -> Texts:
    """Texts, and None for missing values, as an array."""
    column = np.empty(len(values), dtype=np.object_)
    column[:] = values
    return column


def as_text(value: object) -> str:
    """A number, truth value or text as text: 3.0 becomes "3", other floats become what Python prints."""
    if isinstance(value, float | np.floating):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    return str(value)


def label_of(text: str) -> str | int | float:
    """A class or value as it was in the data: a number if `as_text` of the number is this text."""
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number) or as_text(number) != text:
        return text
    return int(number) if number.is_integer() else number


def to_text(column: Column) -> Texts:
    """The column as text: `as_text` of each number, and None for a missing value."""
    if not is_numeric(column):
        return cast(Texts, column)
    return text_column([None if value != value else as_text(value) for value in column.tolist()])


def to_numbers(column: Column, what: str) -> Floats:
    """The column as numbers. DataError names a text that is no number."""
    if is_numeric(column):
        return column
    try:
        return _numbers(np.array([np.nan if value is None else float(value) for value in column.tolist()]))
    except ValueError:
        raise DataError(what, "must be numbers", next(filter(_is_no_number, column.tolist()))) from None


def is_numeric(column: Column) -> TypeGuard[Floats]:
    """Whether a column is one of numbers and not of text."""
    return column.dtype.kind == "f"


def is_missing(column: Column) -> NDArray[np.bool_]:
    """(rows,) bool array: whether the value of each row is missing."""
    return (
        np.isnan(column) if is_numeric(column) else np.array([v is None for v in column.tolist()], np.bool_)
    )


def update_digest(digest: hashlib.blake2b, column: Column) -> None:
    """Add the values of a column to a digest. Different columns add different bytes."""
    if is_numeric(column):
        digest.update(b"n" + len(column).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(column, dtype="<f8").data)
        return
    encoded = [None if value is None else value.encode(errors="surrogatepass") for value in column.tolist()]
    lengths = np.array([-1 if raw is None else len(raw) for raw in encoded], dtype="<i8")
    digest.update(b"t" + len(column).to_bytes(8, "little"))
    digest.update(lengths.data)
    digest.update(b"".join(filter(None, encoded)))


def _numbers(array: NDArray[Any]) -> Floats:
    floats = np.array(array, dtype=np.float64)
    # NaN has many bit patterns; copies of a column must use the same one, for equal digests.
    floats[np.isnan(floats)] = np.nan
    return floats


def _from_objects(values: list[Any], what: str) -> Column:
    # NaN is the only value that does not equal itself.
    present = [None if value is None or value != value else value for value in values]
    kinds = set(map(type, present)) - {type(None)}
    if all(issubclass(kind, bool | np.bool_) for kind in kinds) and kinds:
        return text_column([None if value is None else str(value) for value in present])
    if all(issubclass(kind, str) for kind in kinds) and kinds:
        return text_column([None if value is None else str(value) for value in present])
    for value in present:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number | Decimal | None):
            raise DataError(what, _KINDS, value)
    try:
        return _numbers(np.array([np.nan if value is None else float(value) for value in present]))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(what, f"must be numbers that a float64 can hold ({error})", values[:1]) from None


def _is_no_number(value: str | None) -> bool:
    try:
        float(0 if value is None else value)
    except ValueError:
        return True
    return False
