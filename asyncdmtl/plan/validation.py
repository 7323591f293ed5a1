"""Checks of arguments before any work is done. Errors name the argument and the rule that it breaks."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.units import UNIT_KINDS, UnitKind

# The largest whole number of an argument: up to this, every whole number is exact as a float, too.
LARGEST_WHOLE_NUMBER = 2**53

# The possible wants of a worker: the models of all tasks, those of the tasks that it stores data of, or none.
WANTS = ("all", "own", "none")

# The most characters of a number that is read as a fraction.
_DIGITS = 400

# The most digits of its exponent: reading `Fraction("1e99999999")` would take for ever.
_EXPONENT_DIGITS = 3


def whole_number(argument: str, value: Any, low: int = 0, high: int = LARGEST_WHOLE_NUMBER) -> int:
    """`value` as an int; UsageError unless it is a whole number (of NumPy, too) from `low` to `high`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        limit = f"from {low} to {high}" if high < LARGEST_WHOLE_NUMBER else f"from {low} on"
        raise UsageError(argument, f"must be a whole number {limit}", value)
    return number


def true_or_false(argument: str, value: Any) -> bool:
    """`value` as a bool; UsageError unless it is one (of NumPy, too)."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(argument, "must be True or False", value)
    return bool(value)


def unit_kind(value: Any) -> UnitKind:
    """`value` as one of `UNIT_KINDS`; UsageError unless it is one."""
    if not isinstance(value, str) or value not in UNIT_KINDS:
        raise UsageError("units", f"must be one of {', '.join(UNIT_KINDS)}", value)
    return UNIT_KINDS[UNIT_KINDS.index(value)]


def rational(argument: str, value: Any, low: int = 0) -> Fraction:
    """`value` as an exact fraction of at least `low`; a float counts as the decimal that Python prints."""
    text = str(value)
    exponent = re.search(r"[eE][+-]?0*(\d+)", text)
    if isinstance(value, bool) or len(text) > _DIGITS or (exponent and len(exponent[1]) > _EXPONENT_DIGITS):
        raise UsageError(argument, "must be a number of moderate size", value)
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(argument, "must be a finite number, such as 2, 0.1 or 1/3", value) from None
    if number < low:
        raise UsageError(argument, f"must be at least {low}" if low else "must not be negative", value)
    return number


def a_placement(value: Any) -> Placement:
    """Return `value`; raise UsageError unless it is a Placement."""
    if not isinstance(value, Placement):
        raise UsageError("placement", "must be a Placement, such as Placement({'w0': ['a', 'b']})", value)
    return value


def numbered_tasks(placement: Placement, tasks: Any) -> tuple[int, ...]:
    """The task of each partition, counted from 0 without gaps; with None each partition is a task.

    Raises
    ------
    UsageError
        There are not as many tasks as partitions, tasks are not whole numbers, or there are gaps.
    """
    partitions = len(placement.partitions)
    if tasks is None:
        return tuple(range(partitions))
    try:
        owners = tuple(operator.index(task) for task in tasks)
    except TypeError:
        raise UsageError("tasks", "must be whole numbers, one for each partition", tasks) from None
    if len(owners) != partitions:
        raise UsageError("tasks", f"must name a task for each of {partitions} partitions", owners)
    if set(owners) != set(range(len(set(owners)))):
        raise UsageError("tasks", "must be numbered from 0 without gaps", owners)
    return owners


def per_worker(
    argument: str, values: Any, placement: Placement, *, positive: bool = False
) -> tuple[Fraction, ...]:
    """One exact number for every worker; UsageError if one is negative, or zero and `positive` is set."""
    try:
        given: Sequence[Any] = list(values)
    except TypeError:
        raise UsageError(argument, "must be numbers, one for each worker", values) from None
    if len(given) != len(placement.workers):
        raise UsageError(argument, f"must be as many as workers ({len(placement.workers)})", values)
    numbers = tuple(rational(argument, value) for value in given)
    if positive and min(numbers) <= 0:
        raise UsageError(argument, "must be positive", values)
    return numbers


def wants_of(placement: Placement, wants: Any) -> tuple[str, ...]:
    """A word of `WANTS` for each worker.

    Parameters
    ----------
    placement : Placement
    wants : mapping of worker name to "all", "own" or "none", sequence of K such words, or None
        The wants of workers. Workers that a mapping does not name want all; with None, all workers do.

    Raises
    ------
    UsageError
        A word or a worker is unknown, the number of words is wrong, or no worker wants anything.
    """
    workers = placement.workers
    if wants is None:
        return ("all",) * len(workers)
    if isinstance(wants, Mapping):
        if unknown := [name for name in wants if name not in workers]:
            raise UsageError("wants", f"must name the workers {', '.join(workers)}; unknown", unknown)
        words = [wants.get(name, "all") for name in workers]
    elif isinstance(wants, Sequence) and not isinstance(wants, str) and len(wants) == len(workers):
        words = list(wants)
    else:
        raise UsageError("wants", f"must be a word for each of {len(workers)} workers", wants)
    if wrong := [word for word in words if not isinstance(word, str) or word not in WANTS]:
        raise UsageError("wants", f"must be {', '.join(WANTS[:-1])} or {WANTS[-1]} for each worker", wrong)
    if set(words) == {"none"}:
        raise UsageError("wants", "must be all or own for at least one worker", words)
    return tuple(words)


def helpers_of(placement: Placement, wants: Any) -> tuple[int, ...]:
    """The workers that want nothing, ascending. Arguments and errors are those of `wants_of`."""
    return tuple(k for k, word in enumerate(wants_of(placement, wants)) if word == "none")


def check_combination(strategy: str, prices: object, speeds: object, silent: int) -> None:
    """UsageError if an option is not for this strategy, or if two options exclude each other."""
    if prices is not None and speeds is not None:
        raise UsageError("prices and speeds", "cannot both be given", (prices, speeds))
    if speeds is not None and strategy != "relay":
        raise UsageError("speeds", "are for the strategy relay", strategy)
    if silent and strategy not in ("central", "relay"):
        raise UsageError("silent", "is for the strategies central and relay", strategy)


def numeric_dtype(dtype: Any) -> np.dtype[np.generic]:
    """`dtype` as a NumPy dtype; UsageError unless it is one of numbers."""
    try:
        known: np.dtype[np.generic] = np.dtype(dtype)
    except (TypeError, ValueError):
        raise UsageError("dtype", "must be a NumPy dtype of numbers, such as float32", dtype) from None
    if known.kind not in "biufc":
        raise UsageError("dtype", "must be a NumPy dtype of numbers, such as float32", dtype)
    return known


def check_vectors(argument: str, value: object, count: int) -> None:
    """UsageError unless `value` is an array of numbers of shape (count, d), d at least 1."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise UsageError(argument, "must be a NumPy array of numbers", kind)
    if value.ndim != 2 or len(value) != count or value.shape[1] < 1:
        raise UsageError(argument, f"must have the shape ({count}, d)", value.shape)


def check_byte_rows(argument: str, value: object, shape: tuple[int, int] | None) -> None:
    """UsageError unless `value` is a 2-D array of uint8, of this shape if one is given."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype != np.uint8:
        kind = f"{value.ndim}-D {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UsageError(argument, "must be a 2-D array of uint8", kind)
    if shape is not None and value.shape != shape:
        raise UsageError(argument, f"must have the shape {shape}", value.shape)
