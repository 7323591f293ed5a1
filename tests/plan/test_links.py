from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.links import EQUAL_LINKS, Links, read_links, server_speed
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement({"a": ["x", "y"], "b": ["y", "z"], "late": ["z", "x"]})


def test_a_worker_that_no_table_names_has_the_worst_link() -> None:
    assert EQUAL_LINKS.weights(PLACEMENT) == {}
    speeds = {"a": Fraction(10), "b": Fraction(5, 2)}
    assert Links(speeds=speeds).weights(PLACEMENT) == {"speeds": (10, Fraction(5, 2), Fraction(5, 2))}
    assert Links(prices=speeds).weights(PLACEMENT) == {"prices": (10, Fraction(5, 2), 10)}


def test_tables_are_for_some_strategies_only() -> None:
    table = {"a": Fraction(1)}
    with pytest.raises(UsageError, match=r"--prices cannot be given with --speeds, got \['a'\]"):
        Links(table, table)
    with pytest.raises(UsageError, match="--speeds are for --strategy relay or auto, got 'central'"):
        Links(speeds=table).check("central")
    with pytest.raises(UsageError, match="--prices are for strategies that code bytes, got 'linear'"):
        Links(prices=table).check("linear")
    Links(speeds=table).check("auto")
    Links(prices=table).check("central")


def test_a_table_is_read_exactly(tmp_path: Path) -> None:
    file = tmp_path / "links.toml"
    file.write_text('[speeds]\na = 0.1\nb = "1/3"\n[prices]\na = 0\n')
    assert read_links(file, "speeds") == {"a": Fraction(1, 10), "b": Fraction(1, 3)}
    assert read_links(file, "prices") == {"a": 0}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[speeds]\na = 1\n[down_speeds]\na = 0\n", "down_speeds in .*: a must be more than 0"),
        ("[prices]\na = 1\n", "must have a table speeds"),
        ("speeds = 3\n", "must have a table speeds"),
        ("[speeds]\na = 0\n", "speeds in .*: a must be more than 0"),
        ("[speeds]\na = -1\n", "speeds in .*: a must not be negative"),
        ('[speeds]\na = "fast"\n', "speeds in .*: a must be a finite number"),
        ("[speeds", "must be TOML or JSON"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "links.toml"
    file.write_text(content)
    with pytest.raises(PlacementError, match=complaint):
        read_links(file, "down_speeds" if "down_speeds" in content else "speeds")


def test_links_have_one_speed_both_ways_unless_a_table_says_otherwise(tmp_path: Path) -> None:
    speeds = {"a": Fraction(10), "b": Fraction(20)}
    assert Links(speeds=speeds).speeds_down(PLACEMENT) == tuple(map(Fraction, (10, 20, 10)))
    other = Links(speeds=speeds, down_speeds={"b": Fraction(90)})
    assert other.speeds_down(PLACEMENT) == tuple(map(Fraction, (10, 90, 10)))
    file = tmp_path / "links.toml"
    file.write_text("[speeds]\na = 1\n")
    assert read_links(file, "down_speeds", optional=True) == {}


def test_the_speed_of_the_server_is_read_exactly() -> None:
    assert server_speed({}, "f") is None
    assert server_speed({"server": {"speed": 0.1}}, "f") == Fraction(1, 10)
    with pytest.raises(PlacementError, match="server in f must be a table with a number speed, got 7"):
        server_speed({"server": 7}, "f")
    with pytest.raises(PlacementError, match="server in f: speed must be more than 0, got 0"):
        server_speed({"server": {"speed": 0}}, "f")
    with pytest.raises(PlacementError, match="server in f: speed"):
        server_speed({"server": {"speed": "fast"}}, "f")
