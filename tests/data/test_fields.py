from __future__ import annotations

import math
from typing import Any

import pytest

from asyncdmtl.data.fields import read_fields, read_names, read_pairs
from asyncdmtl.errors import UsageError


def test_fields_come_in_the_order_asked_for() -> None:
    content = {"rows": 3, "name": "a", "mean": 0.5}
    assert read_fields("survey", content, name=str, mean=float, rows=int) == ["a", 0.5, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"survey must have exactly rows, mean, got \[\]"),
        ({"rows": 1}, r"survey must have exactly rows, mean, got \{'rows': 1\}"),
        ({"rows": 1, "mean": 0.0, "more": 1}, "survey must have exactly rows, mean"),
        ({"rows": True, "mean": 0.0}, "rows of survey must be of type int, and finite, got True"),
        ({"rows": 1.0, "mean": 0.0}, r"rows of survey must be of type int, and finite, got 1\.0"),
        ({"rows": 1, "mean": 0}, "mean of survey must be of type float, and finite, got 0"),
        ({"rows": 1, "mean": math.nan}, "mean of survey must be of type float, and finite, got nan"),
        ({"rows": 1, "mean": -math.inf}, "mean of survey must be of type float, and finite, got -inf"),
    ],
)
def test_fields_that_break_a_rule_are_named(content: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        read_fields("survey", content, rows=int, mean=float)


def test_names_become_a_tuple() -> None:
    assert read_names("features", ["b", "a"]) == ("b", "a")
    assert read_names("features", ("b", "a")) == ("b", "a")
    assert read_names("features", []) == ()


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ("a", "must be a list of texts"),
        ([1], "must be a list of texts"),
        (["a", "a"], "must be different"),
    ],
)
def test_what_is_no_list_of_names_is_refused(names: Any, rule: str) -> None:
    with pytest.raises(UsageError, match=f"^features {rule}, got "):
        read_names("features", names)


def test_pairs_have_different_names_and_anything_beside_them() -> None:
    assert read_pairs("levels", [["a", 1], ("b", [2])]) == [("a", 1), ("b", [2])]


@pytest.mark.parametrize(
    ("pairs", "rule"),
    [
        ([["a", 1, 2]], "must be pairs"),
        (["ab"], "must be pairs"),
        ([["a", 1], ["a", 2]], "must be different"),
        ([[1, "a"]], "must be a list of texts"),
    ],
)
def test_what_are_no_pairs_is_refused(pairs: Any, rule: str) -> None:
    with pytest.raises(UsageError, match=f"^levels {rule}"):
        read_pairs("levels", pairs)
