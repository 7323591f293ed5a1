"""The interfaces for users, peers and scripts are as tools/freeze.py has recorded them."""

from __future__ import annotations

import freeze
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", freeze.PARTS)
def test_behaviour_is_as_frozen(part: str) -> None:
    assert freeze.changes(part) == []


def test_differences_are_found_wherever_they_are() -> None:
    then = {"a": {"b": 1, "gone": 2}, "list": ["x", "y"]}
    now = {"a": {"b": 3, "new": 4}, "list": ["y", "z"]}
    assert list(freeze.differences(then, now)) == [
        "a / b: was 1, is 3",
        "a / gone: is gone",
        "a / new: is new",
        "list: is gone: x",
        "list: is new: z",
    ]
    assert list(freeze.differences(["x", "y"], ["y", "x"], "list")) == ["list: is in another order"]
    assert list(freeze.differences(then, then)) == []
