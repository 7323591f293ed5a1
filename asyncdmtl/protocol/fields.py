"""Checks of the fields of a received message.

Each function returns the value, or raises RemoteProtocolError, which names the field and the rule.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.plan.limits import MOST_NAMES

# The default limit of whole numbers in fields. Up to this, floats hold every whole number, so that no reader
# of a report loses a digit.
MAX_INTEGER = 2**53

# The most characters of the name of a worker, a partition, a task or a run: enough for readable names.
MAX_NAME_LENGTH = 200


def integer(value: Any, field: str, low: int = 0, high: int = MAX_INTEGER) -> int:
    """A whole number from `low` to `high`, both included."""
    if type(value) is not int or not low <= value <= high:
        raise RemoteProtocolError(f"{field} must be an integer from {low} to {high}")
    return value


def real(value: Any, field: str) -> float:
    """Any float, also infinite or NaN, as the losses of a diverging run may be."""
    if type(value) is not float:
        raise RemoteProtocolError(f"{field} must be a float")
    return value


def finite(value: Any, field: str, low: float, *, above: bool = False) -> float:
    """A finite float of at least `low`, or of more than `low` if `above`."""
    if not low <= real(value, field) < math.inf or (above and value == low):
        raise RemoteProtocolError(
            f"{field} must be a finite float, {'more than' if above else 'at least'} {low:g}"
        )
    return float(value)


def text(value: Any, field: str, limit: int = MAX_NAME_LENGTH) -> str:
    """Text of at most `limit` characters."""
    if type(value) is not str or len(value) > limit:
        raise RemoteProtocolError(f"{field} must be text of at most {limit} characters")
    return value


def name(value: Any, field: str) -> str:
    """A name: text of at least one character, all of them printable."""
    if not text(value, field) or not value.isprintable():
        raise RemoteProtocolError(f"{field} must be 1 to {MAX_NAME_LENGTH} printable characters")
    return str(value)


def choice(value: Any, field: str, known: Collection[str]) -> str:
    """One of the words in `known`."""
    if type(value) is not str or value not in known:
        raise RemoteProtocolError(f"{field} must be one of {', '.join(known)}")
    return value


def flag(value: Any, field: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise RemoteProtocolError(f"{field} must be true or false")
    return value


def binary(value: Any, field: str, unit: int, count: int | None = None) -> bytes:
    """Bytes whose length is `count` times `unit`, or with None any multiple of `unit`."""
    if type(value) is not bytes or len(value) % unit or (count is not None and len(value) != unit * count):
        raise RemoteProtocolError(f"{field} must be {'some' if count is None else count} × {unit} bytes")
    return value


def optional(value: Any, field: str, unit: int) -> bytes:
    """Exactly `unit` bytes, or none."""
    return binary(value, field, unit, 1 if value else 0)


def sequence(value: Any, field: str) -> list[Any]:
    """A list; its items are not checked."""
    if type(value) is not list:
        raise RemoteProtocolError(f"{field} must be a list")
    return value


def mapping(value: Any, field: str) -> dict[str, Any]:
    """A map whose keys are text; its values are not checked."""
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise RemoteProtocolError(f"{field} must be a map with names as keys")
    return value


def exactly(values: Sequence[Any], count: int, message: str) -> Sequence[Any]:
    """The fields of a message or of a part of one, which must be `count`."""
    if len(values) != count:
        raise RemoteProtocolError(f"{message} has {len(values)} fields instead of {count}")
    return values


def absence(workers: Sequence[int]) -> list[Any]:
    """The last field of a message, which numbers absent workers, and is left out if there are none."""
    return [list(workers)] if workers else []


def absent(values: Sequence[Any], count: int) -> tuple[Sequence[Any], tuple[int, ...]]:
    """The other fields, which should be `count`, and the absent workers: ascending numbers, at least one."""
    if len(values) != count + 1:
        return values, ()
    workers = tuple(
        integer(k, "absent worker", 0, MOST_NAMES) for k in sequence(values[count], "absent workers")
    )
    if not workers or list(workers) != sorted(set(workers)):
        raise RemoteProtocolError("absent workers must be some ascending numbers")
    return values[:count], workers


def timing(values: Sequence[Any], count: int) -> tuple[Sequence[Any], tuple[float, ...]]:
    """The other fields, which should be `count`, and the seconds and the speed that may follow."""
    if len(values) != count + 1:
        return values, ()
    seconds, speed = exactly(sequence(values[count], "timing"), 2, "timing")
    return values[:count], (finite(seconds, "seconds", 0.0), finite(speed, "speed", 0.0))


def critical_strength(value: Any) -> float | None:
    """The λ from which on all coefficients are 0, or None if it is not known."""
    return None if value is None else finite(value, "critical strength", 0.0)


def names(value: Any, field: str, most: int) -> tuple[str, ...]:
    """A list of at most `most` names, none of which occurs twice."""
    found = tuple(name(each, field) for each in sequence(value, field))
    if len(found) > most or len(set(found)) < len(found):
        raise RemoteProtocolError(f"{field} must be at most {most} names, each once")
    return found
