from __future__ import annotations

from typing import Any

import pytest

from asyncdmtl.errors import PlacementError
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement({"a": ["x", "y"], "b": ["y"], "c": ["z"], "d": ["z", "x"]})


def test_a_relay_stands_for_all_workers_behind_it() -> None:
    tree = Topology(PLACEMENT, {"inner": ["b", "c"], "outer": ["a", "inner"]})
    assert tree.top == ("d", "outer")
    assert tree.top_down == ("outer", "inner")
    assert tree.workers_behind("outer") == {"a", "b", "c"}
    assert tree.stored("inner") == ("y", "z")
    assert tree.placement_of(tree.top).as_dict() == {"d": ["x", "z"], "outer": ["x", "y", "z"]}
    assert tree.placement_of(("b", "c"), "above").as_dict() == {"b": ["y"], "c": ["z"], "above": ["x"]}
    assert list(tree.path("b")) == [("b", "inner"), ("inner", "outer"), ("outer", None)]
    assert list(tree.path("d")) == [("d", None)]


def test_workers_may_be_behind_several_relays() -> None:
    shared = Topology(PLACEMENT, {"r": ["a", "b"], "s": ["b", "c", "d"]})
    assert shared.top == ("r", "s")
    assert shared.stored("r") == ("x", "y")
    assert shared.stored("s") == ("x", "y", "z")
    assert (shared.parent("b"), shared.parent("c"), shared.parent("s")) == ("r", "s", None)


def test_a_relay_wants_what_some_worker_behind_it_does() -> None:
    tree = Topology(PLACEMENT, {"r": ["a", "b"], "s": ["c"]})
    assert tree.wants(None)["r"] == "all"
    words = tree.wants(["none", "own", "none", "all"])
    assert (words["r"], words["s"], words["d"]) == ("own", "none", "all")


def test_equal_topologies_are_equal() -> None:
    one, same = (Topology(PLACEMENT, {"r": list("ab")}) for _ in range(2))
    assert (one, hash(one)) == (same, hash(same))
    assert one != Topology(PLACEMENT, {"r": ["a"]})
    assert one != "r"


@pytest.mark.parametrize(
    ("relays", "complaint"),
    [
        ({}, "relays must map names"),
        (["r"], "relays must map names"),
        ({"r": "ab"}, "relay 'r' must be a list"),
        ({"r": []}, "must have a worker or relay"),
        ({"r": ["q"]}, "unknown, got \\['q'\\]"),
        ({"r": ["a", "a"]}, "name each node once"),
        ({"a": ["b"]}, "other names than workers"),
        ({"": ["b"]}, "1 to 200 printable"),
        ({"r": ["a", "s"], "s": ["b", "r"]}, "must not be behind themselves, got \\['r', 's'\\]"),
        ({"r": ["a", "r"]}, "must not be behind themselves"),
    ],
)
def test_a_broken_rule_is_named(relays: Any, complaint: str) -> None:
    with pytest.raises(PlacementError, match=complaint):
        Topology(PLACEMENT, relays)
