from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol import fields

ACCEPTED: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
    (fields.integer, (), 0),
    (fields.integer, (), fields.MAX_INTEGER),
    (fields.integer, (-5, 5), -5),
    (fields.real, (), math.nan),
    (fields.real, (), 0.5),
    (fields.finite, (0.0,), 0.0),
    (fields.text, (), ""),
    (fields.text, (3,), "a\nb"),
    (fields.name, (), "w0"),
    (fields.choice, (("a", "b"),), "b"),
    (fields.flag, (), False),
    (fields.binary, (8,), b""),
    (fields.binary, (8,), bytes(24)),
    (fields.binary, (8, 2), bytes(16)),
    (fields.sequence, (), [1, "x"]),
    (fields.mapping, (), {"a": 1, "": []}),
]

REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...], Any, str]] = [
    (fields.integer, (), -1, "thing must be an integer from 0 to 9007199254740992"),
    (fields.integer, (), 2**53 + 1, "thing must be an integer from 0 to"),
    (fields.integer, (1, 6), 7, "thing must be an integer from 1 to 6"),
    (fields.integer, (), True, "thing must be an integer"),
    (fields.integer, (), 1.0, "thing must be an integer"),
    (fields.real, (), 1, "thing must be a float"),
    (fields.finite, (0.0,), -0.5, "thing must be a finite float, at least 0"),
    (fields.finite, (0.0,), math.inf, "thing must be a finite float"),
    (fields.finite, (0.0,), math.nan, "thing must be a finite float"),
    (fields.text, (2,), "abc", "thing must be text of at most 2 characters"),
    (fields.text, (), b"abc", "thing must be text"),
    (fields.name, (), "", "thing must be 1 to 200 printable characters"),
    (fields.name, (), "a\tb", "thing must be 1 to 200 printable characters"),
    (fields.name, (), "x" * 201, "thing must be text of at most 200 characters"),
    (fields.choice, (("a", "b"),), "c", "thing must be one of a, b"),
    (fields.choice, (("a", "b"),), 1, "thing must be one of a, b"),
    (fields.flag, (), 1, "thing must be true or false"),
    (fields.binary, (8,), bytes(9), "thing must be some × 8 bytes"),
    (fields.binary, (8, 1), bytes(16), "thing must be 1 × 8 bytes"),
    (fields.binary, (1,), "text", "thing must be some × 1 bytes"),
    (fields.sequence, (), (1,), "thing must be a list"),
    (fields.mapping, (), {1: 2}, "thing must be a map with names as keys"),
    (fields.mapping, (), [], "thing must be a map with names as keys"),
]


@pytest.mark.parametrize(("check", "bounds", "value"), ACCEPTED)
def test_a_good_value_is_given_back(check: Callable[..., Any], bounds: tuple[Any, ...], value: Any) -> None:
    found = check(value, "thing", *bounds)
    assert type(found) is type(value)
    assert repr(found) == repr(value)


@pytest.mark.parametrize(("check", "bounds", "value", "complaint"), REFUSED)
def test_a_bad_value_is_refused(
    check: Callable[..., Any], bounds: tuple[Any, ...], value: Any, complaint: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        check(value, "thing", *bounds)


def test_a_float_may_have_to_lie_above_its_bound() -> None:
    assert fields.finite(5e-324, "thing", 0.0, above=True) == 5e-324
    with pytest.raises(RemoteProtocolError, match="thing must be a finite float, more than 0"):
        fields.finite(0.0, "thing", 0.0, above=True)


def test_fields_are_counted() -> None:
    assert fields.exactly([1, 2], 2, "hello") == [1, 2]
    with pytest.raises(RemoteProtocolError, match="hello has 1 fields instead of 2"):
        fields.exactly([1], 2, "hello")


def test_absent_workers_are_told_by_a_last_field_that_may_be_missing() -> None:
    assert (fields.absence(()), fields.absence((0, 2))) == ([], [[0, 2]])
    assert fields.absent([1, 2], 2) == ([1, 2], ())
    assert fields.absent([1, 2, [0, 2]], 2) == ([1, 2], (0, 2))
    for wrong in ([], [2, 0], [1, 1], [-1], ["0"], 1):
        with pytest.raises(RemoteProtocolError, match="absent worker"):
            fields.absent([1, 2, wrong], 2)


def test_a_timing_may_follow_the_other_fields() -> None:
    assert fields.timing([1, 2], 2) == ([1, 2], ())
    assert fields.timing([1, 2, [0.5, 8e6]], 2) == ([1, 2], (0.5, 8e6))
    for wrong in ([0.5], [0.5, -1.0], [float("nan"), 1.0], 3):
        with pytest.raises(RemoteProtocolError):
            fields.timing([1, 2, wrong], 2)


def test_names_occur_once() -> None:
    assert fields.names(["a", "b"], "workers", 2) == ("a", "b")
    for wrong in (["a", "a"], ["a", "b", "c"]):
        with pytest.raises(RemoteProtocolError, match="workers must be at most 2 names, each once"):
            fields.names(wrong, "workers", 2)
    with pytest.raises(RemoteProtocolError, match="workers must be a list"):
        fields.names("ab", "workers", 2)
