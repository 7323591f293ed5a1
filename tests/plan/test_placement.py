from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.errors import PlacementError
from asyncdmtl.plan.placement import Placement, natural_key


def test_names_become_indices() -> None:
    placement = Placement({"b": ["p10", "p2"], "a": [], "c": ["p2", "p0"]})
    assert placement.workers == ("b", "a", "c")
    assert placement.partitions == ("p0", "p2", "p10")
    assert placement.stored == ((1, 2), (), (0, 1))
    assert placement.holders == ((2,), (0, 2), (0,))
    assert placement.missing(1) == (0, 1, 2)
    assert Placement(placement.as_dict()) == placement


def test_equal_placements_are_equal_values() -> None:
    one, two = Placement({"a": ["x", "y"]}), Placement({"a": ["y", "x"]})
    assert one == two
    assert hash(one) == hash(two)
    assert one != Placement({"a": ["x", "y"]}, ["y", "x"])


@pytest.mark.parametrize(
    ("stored", "partitions", "complaint"),
    [
        ({}, None, "at least one worker"),
        ({"a": []}, None, "at least one partition"),
        ({"a": ["x", "x"]}, None, r"named twice.*'x'"),
        ({"a": ["x"]}, ["x", "y"], r"without holder.*'y'"),
        ({"a": ["x", "z"]}, ["x"], r"worker 'a'.*unknown.*'z'"),
        ({"a": [""]}, None, "printable"),
        ({"a\n": ["x"]}, None, "printable"),
    ],
)
def test_a_broken_rule_is_named(
    stored: dict[str, list[str]], partitions: list[str] | None, complaint: str
) -> None:
    with pytest.raises(PlacementError, match=complaint):
        Placement(stored, partitions)


@given(st.integers(1, 9), st.integers(1, 40), st.data())
def test_cyclic_placements_are_balanced(workers: int, partitions: int, data: st.DataObject) -> None:
    copies = data.draw(st.integers(1, workers))
    placement = Placement.cyclic(workers, partitions, copies)
    assert {len(holders) for holders in placement.holders} == {copies}
    sizes = [len(stored) for stored in placement.stored]
    assert max(sizes) - min(sizes) <= 1
    for n, holders in enumerate(placement.holders[: partitions - partitions % workers]):
        assert set(holders) == {(n + i) % workers for i in range(copies)}


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 1, 1), "workers"), ((1, 0, 1), "partitions"), ((3, 3, 4), "copies")]
)
def test_cyclic_placements_check_their_arguments(arguments: tuple[int, int, int], name: str) -> None:
    with pytest.raises(PlacementError, match=name):
        Placement.cyclic(*arguments)


def test_files_are_read(tmp_path: Path) -> None:
    content = {"workers": {"a": ["x", "y"], "b": ["y"]}, "partitions": ["y", "x"]}
    expected = Placement({"a": ["x", "y"], "b": ["y"]}, ["y", "x"])
    toml = tmp_path / "p.toml"
    toml.write_text('partitions = ["y", "x"]\n[workers]\na = ["x", "y"]\nb = ["y"]\n')
    as_json = tmp_path / "p.json"
    as_json.write_text(json.dumps(content))
    assert Placement.read(toml) == Placement.read(as_json) == expected


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("p.toml", "[workers", "must be TOML or JSON"),
        ("p.json", "{", "must be TOML or JSON"),
        ("p.json", "[]", "table 'workers'"),
        ("p.toml", "workers = 3", "table 'workers'"),
        ("p.toml", "[workers]\na = [1]", "table 'workers'"),
        ("p.toml", "partitions = 1\n[workers]\na = ['x']", "'partitions' to be a list"),
        (
            "p.toml",
            "partitions = ['y']\n[workers]\na = ['x']",
            "p.toml: placement must store every partition",
        ),
    ],
)
def test_files_that_do_not_describe_a_placement(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(PlacementError, match=complaint) as caught:
        Placement.read(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match="No such file"):
        Placement.read(tmp_path / "none.toml")


def test_natural_order() -> None:
    assert sorted(["w10", "w9", "w1", "v2"], key=natural_key) == ["v2", "w1", "w9", "w10"]
