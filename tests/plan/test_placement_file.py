from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import declare_worker, read_request, tables_of, weights_of, write_placement

WORKERS = '[workers]\na = ["x", "y"]\nb = ["y", "z"]\n'


def test_all_tables_are_read(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        WORKERS
        + '[tasks]\nt10 = ["y"]\nt2 = ["z", "x"]\n[prices]\na = 0.1\nb = "1/3"\n[speeds]\nb = 2\na = 10\n'
    )
    request = read_request(file)
    assert request.task_names == ("t2", "t10")
    assert request.tasks == (0, 1, 0)
    assert request.prices == (Fraction(1, 10), Fraction(1, 3))
    assert request.speeds == (Fraction(10), Fraction(2))


def test_partitions_are_tasks_of_their_own_unless_said_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(WORKERS)
    request = read_request(file)
    assert (request.task_names, request.tasks) == (("x", "y", "z"), (0, 1, 2))
    assert request.prices is request.speeds is None


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ("[task]\nt = []\n", "unknown, got \\['task'\\]"),
        ("[tasks]\nt = ['x', 'y']\n", "without task, got \\['z'\\]"),
        ("[tasks]\nt = ['x', 'y', 'q']\n", "unknown, got 'q'"),
        ("[tasks]\nt = ['x', 'y', 'z']\nu = ['z']\n", "may not own what t owns"),
        ("[tasks]\nt = 3\n", "table of lists"),
        ("[prices]\na = 1\n", "table of the workers a, b"),
        ("[prices]\na = 1\nb = -1\n", "b must not be negative"),
        ("[prices]\na = 1\nb = 'much'\n", "b must be a finite number"),
        ("[prices]\na = 1\nb = nan\n", "b must be a finite number"),
        ("[prices]\na = 1\nb = true\n", "b must be a number of moderate size"),
        ("[prices]\na = 1\nb = '1e99999999'\n", "b must be a number of moderate size"),
        ("[speeds]\na = 1\nb = 0\n", "speeds .* more than 0"),
        ("[speeds]\na = 1\nb = 1\n[down_speeds]\na = 1\nb = 0\n", "down_speeds .* more than 0"),
        ("[down_speeds]\na = 1\nb = 1\n", "down_speeds .* needs a table speeds"),
        ("[wants]\nc = 'none'\n", "wants .* unknown, got \\['c'\\]"),
        ("[wants]\na = 'some'\n", "wants .* must be all, own or none"),
        ("[wants]\na = 'none'\nb = 'none'\n", "wants .* at least one worker"),
        ("[relays]\nr = ['c']\n", "relay 'r' must name workers and relays; unknown, got \\['c'\\]"),
        ("[relays]\nr = ['b']\n[speeds]\na = 1\nb = 2\n", "table of the workers and relays a, b, r"),
        ("wants = 3\n", "wants .* table of workers"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, tables: str, complaint: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(tables + WORKERS if tables.startswith("wants =") else WORKERS + tables)
    with pytest.raises(PlacementError, match=complaint):
        read_request(file)


@pytest.mark.parametrize("name", ["p.toml", "p.json"])
def test_a_written_placement_is_read_back(tmp_path: Path, name: str) -> None:
    placement = Placement({'a "b" \\ = c': ["x", "ü #"], "[w.1]": [], "w": ["ü #", "z"]}, ["z", "x", "ü #"])
    write_placement(placement, tmp_path / name)
    assert Placement.read(tmp_path / name) == placement


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--output must be writable"):
        write_placement(Placement.cyclic(2, 2, 1), tmp_path / "no" / "p.toml")


@pytest.mark.parametrize("name", ["there.toml", "there.json"])
def test_sites_declare_themselves_one_after_the_other(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    declare_worker(file, "north", {"f/1": "1", "f/2": "2"})
    declare_worker(file, "south", {"f/2": "2", "g/3": "3"})
    declare_worker(file, "north", {"f/2": "2"})
    request = read_request(file)
    assert request.placement.as_dict() == {"north": ["f/2"], "south": ["f/2", "g/3"]}
    assert request.task_names == ("2", "3")
    with pytest.raises(PlacementError, match=r"partition 'f/2' must be of task '2', as another worker"):
        declare_worker(file, "east", {"f/2": "9"})
    with pytest.raises(UsageError, match="--declare must be writable"):
        declare_worker(tmp_path / "none" / name, "east", {"f/2": "2"})


@pytest.mark.parametrize("name", ["p.toml", "p.json"])
def test_tables_are_written_and_read_back(tmp_path: Path, name: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        WORKERS
        + '[tasks]\nt = ["y"]\nu = ["z", "x"]\n[prices]\na = 1\nb = "1/3"\nr = 2\n[wants]\nb = "none"\n'
        + '[relays]\nr = ["a", "b"]\n'
    )
    request = read_request(file)
    assert request.wants == ("all", "none")
    assert request.topology == Topology(request.placement, {"r": ["a", "b"]})
    assert request.prices == (Fraction(1), Fraction(1, 3))
    assert request.relay_prices == {"r": Fraction(2)}
    assert request.relay_speeds is None
    write_placement(request.placement, tmp_path / name, tables_of(request, request.placement))
    assert read_request(tmp_path / name) == request
    assert weights_of(request, "load") == {}
    assert weights_of(request, "cost") == {"prices": (Fraction(1), Fraction(1, 3))}
    with pytest.raises(UsageError, match="--minimise makespan needs a table speeds"):
        weights_of(request, "makespan")
