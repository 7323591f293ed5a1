"""Checks of single fields of a message: each gives the value back, or RemoteProtocolError names the field."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from asyncdmtl.errors import RemoteProtocolError

MAX_COUNT = 2**53
NAME_LENGTH = 200


def integer(value: Any, what: str, low: int = 0, high: int = MAX_COUNT) -> int:
    """A whole number within bounds, both included."""
    if type(value) is not int or not low <= value <= high:
        raise RemoteProtocolError(f"{what} must be an integer from {low} to {high}")
    return value


def real(value: Any, what: str) -> float:
    """Any float: a run that diverges has losses that are not finite."""
    if type(value) is not float:
        raise RemoteProtocolError(f"{what} must be a float")
    return value


def text(value: Any, what: str, limit: int = NAME_LENGTH) -> str:
    """Text of at most `limit` characters."""
    if type(value) is not str or len(value) > limit:
        raise RemoteProtocolError(f"{what} must be text of at most {limit} characters")
    return value


def name(value: Any, what: str) -> str:
    """A name: text that is not empty and can be printed."""
    if not text(value, what) or not value.isprintable():
        raise RemoteProtocolError(f"{what} must be 1 to {NAME_LENGTH} printable characters")
    return str(value)


def binary(value: Any, what: str, unit: int, count: int | None = None) -> bytes:
    """Bytes in units of `unit`: `count` of them, or any number."""
    if type(value) is not bytes or len(value) % unit or (count is not None and len(value) != unit * count):
        raise RemoteProtocolError(f"{what} must be {'some' if count is None else count} × {unit} bytes")
    return value


def sequence(value: Any, what: str) -> list[Any]:
    """A list, of anything."""
    if type(value) is not list:
        raise RemoteProtocolError(f"{what} must be a list")
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    """A map with text as keys, of anything."""
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise RemoteProtocolError(f"{what} must be a map with names as keys")
    return value


def flag(value: Any, what: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise RemoteProtocolError(f"{what} must be true or false")
    return value


def choice(value: Any, what: str, known: Collection[str]) -> str:
    """One of the words that are `known`."""
    if type(value) is not str or value not in known:
        raise RemoteProtocolError(f"{what} must be one of {', '.join(known)}")
    return value


def exactly(values: Sequence[Any], count: int, what: str) -> Sequence[Any]:
    """A list of `count` values."""
    if len(values) != count:
        raise RemoteProtocolError(f"{what} has {len(values)} fields instead of {count}")
    return values


def finite(value: Any, what: str, low: float, *, open_: bool = False) -> float:
    """A finite float, at least `low`; more than it, if `open_`."""
    if not low <= real(value, what) < math.inf or (open_ and value == low):
        raise RemoteProtocolError(
            f"{what} must be a finite float, {'more than' if open_ else 'at least'} {low:g}"
        )
    return float(value)
