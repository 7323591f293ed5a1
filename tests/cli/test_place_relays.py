from __future__ import annotations

import pytest

from asyncdmtl.cli.place_relays import relays_of
from asyncdmtl.errors import UsageError

WORKERS = ["w0", "w1", "w2"]


def test_relays_are_a_number_or_named_with_their_nodes() -> None:
    assert relays_of("2", WORKERS) == {"relay0": ("w0",), "relay1": ("w1", "w2")}
    assert relays_of("a = w0 + b, b=w1", WORKERS) == {"a": ("w0", "b"), "b": ("w1",)}


@pytest.mark.parametrize("text", ["a", "a=", "a=w0,a=w1", "", "a=w0,,b=w1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--relays must be a number of relays, or RELAY=NODE"):
        relays_of(text, WORKERS)


def test_there_are_at_most_as_many_relays_as_workers() -> None:
    with pytest.raises(UsageError, match="--relays must be from 1 to 3"):
        relays_of("4", WORKERS)
