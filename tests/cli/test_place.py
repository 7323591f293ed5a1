from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asyncdmtl.cli.place import main
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.design.search import design_placement
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import read_request

KEYS = {
    *("placement", "partitions", "capacities", "copies", "uplink_loads", "uplink_load", "uplink_bound"),
    *("downlink_load", "downlink_bound", "uncoded_load", "speeds", "times", "gap", "optimal", "trade_off"),
}


def place(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def described(*arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(place(*arguments, "--format=json"))
    assert set(content) == KEYS
    return content


def test_json_says_what_was_designed() -> None:
    content = described("--partitions=9", "--capacities=north=9,south=7,small=2", "--seed=3")
    design = design_placement({"north": 9, "south": 7, "small": 2}, 9, seed=3)
    assert Placement(content["placement"], content["partitions"]) == design.placement
    assert content["capacities"] == {"north": 9, "south": 7, "small": 2}
    assert content["copies"] == "2"
    assert Fraction(content["uplink_load"]) == design.uplink_load
    assert Fraction(content["uplink_bound"]) == design.uplink_bound
    assert content["downlink_load"] == content["downlink_bound"] == "7"
    assert [Fraction(load) for load in content["uplink_loads"].values()] == list(design.uplink_rates)
    assert (content["speeds"], content["times"]) == (None, None)
    assert (content["gap"], content["optimal"]) == ("0", True)
    assert [row["copies"] for row in content["trade_off"]] == [1, 2, 3]
    assert content["trade_off"][1]["uplink_load"] == "9/2"


def test_speeds_are_told_to_the_plan(tmp_path: Path) -> None:
    arguments = ["--partitions=12", "--capacities=a=9,b=7,c=5"]
    by_name = described(*arguments, "--speeds=b=10,c=1/2,a=0.1", "--output", str(tmp_path / "p.toml"))
    assert by_name == described(*arguments, "--speeds=0.1,10,1/2")
    assert by_name["speeds"] == {"a": "1/10", "b": "10", "c": "1/2"}
    # c lacks 7 vectors on a slow link, a lacks 3 on a slower one.
    assert by_name["times"]["downlink"] == by_name["times"]["downlink_bound"] == "30"
    request = read_request(tmp_path / "p.toml")
    assert request.speeds == (Fraction(1, 10), Fraction(10), Fraction(1, 2))
    assert request.placement.as_dict() == by_name["placement"]


def test_what_a_person_sees(tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    shown = place("--partitions=20", "--workers=5", "--copies=3", "--plot", str(plot))
    for word in ("20 partitions, 3 copies", "12 of 12", "██", "≥ 10", "Optimal", "5 equal workers"):
        assert word in shown
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "is open" in place("--partitions=3", "--workers=4", "--capacity=2")
    timed = place("--partitions=300", "--workers=40", "--capacity=20", "--speeds=" + ",".join(["1/3"] * 40))
    for word in ("time of the uplink", "840", "a cell is 7 partitions", "smaller total time"):
        assert word in timed


def test_the_next_copies_are_named(tmp_path: Path) -> None:
    start, more = tmp_path / "there.toml", tmp_path / "more.toml"
    start.write_text('[workers]\na = ["p", "q"]\nb = ["q", "r"]\nc = ["s"]\n[speeds]\na = 1\nb = 2\nc = 3\n')
    shown = json.loads(place("--from", str(start), "--add=2", "--output", str(more), "--json"))
    assert (shown["uplink_load"], shown["downlink_load"]) == ("4", "3")
    assert len(shown["additions"]) == 2
    request = read_request(more)
    assert request.placement.as_dict() == shown["placement"]
    assert request.speeds == (Fraction(1), Fraction(2), Fraction(3))
    text = place("--from", str(start))
    assert "as it is" in text
    assert "the times" in place("--from", str(start), "--minimise=makespan")
    with pytest.raises(UsageError, match="--minimise cost needs a table prices"):
        place("--from", str(start), "--minimise=cost")
    with pytest.raises(UsageError, match="--minimise is for --from"):
        place("--partitions=4", "--workers=2", "--copies=1", "--minimise=cost")
    with pytest.raises(UsageError, match="--from cannot be given with another option of the design"):
        place("--from", str(start), "--copies=2")


def test_a_design_needs_partitions_or_a_start() -> None:
    with pytest.raises(UsageError, match="--partitions must be given, or --from"):
        place("--workers=2", "--copies=1")


def test_the_trade_off_fits_on_a_screen() -> None:
    rows = described("--partitions=60", "--workers=30", "--copies=2")["trade_off"]
    assert len(rows) == 20
    copies = [row["copies"] for row in rows]
    assert (copies[0], copies[-1]) == (1, 30)
    assert copies == sorted(set(copies))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--capacities must be given, or --workers"),
        (["--workers=3"], "--workers needs --capacity or --copies"),
        (["--workers=0", "--copies=1"], "--workers must be at least 1, got 0"),
        (["--workers=3", "--capacities=1,2"], "--capacities cannot be given with --workers"),
        (["--capacities=4,x"], "--capacities must be whole numbers separated by commas"),
        (["--capacities=a=4,5"], "--capacities must name all workers, each once, or none"),
        (["--capacities=a=4,a=5"], "--capacities must name all workers, each once, or none"),
        (["--capacities=1,2"], "must hold each of 7 partitions once"),
        (["--capacities=7,6", "--copies=2"], "must hold 2 copies of 7 partitions"),
        (["--workers=3", "--copies=4"], "copies must lie between 1 and"),
        (["--capacities=7,6", "--speeds=1,1/0"], "--speeds must be numbers"),
        (["--capacities=7,6", "--speeds=1,0"], "speeds must be positive"),
        (["--capacities=7,6", "--speeds=1,2,3"], "speeds must be as many as workers"),
        (["--capacities=7,6", "--speeds=w0=1,w7=3"], "--speeds must name the workers w0, w1"),
        (["--capacities=7,6", "--plot=no/such/plot.png"], "--plot must be"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(arguments: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        place("--partitions=7", *arguments)


def test_a_topology_is_designed_for_the_links_to_its_server(tmp_path: Path) -> None:
    arguments = ["--workers=4", "--partitions=4", "--copies=2", "--relays=north=w0+w1,south=w2"]
    file = tmp_path / "p.toml"
    content = json.loads(place(*arguments, "--output", str(file), "--json"))
    assert content["relays"] == {"north": ["w0", "w1"], "south": ["w2"]}
    assert Fraction(content["uplink_load"]) + Fraction(content["downlink_load"]) <= sum(
        Fraction(content[f"flat_{way}_load"]) for way in ("uplink", "downlink")
    )
    request = read_request(file)
    assert request.topology is not None
    assert request.placement.as_dict() == content["placement"]
    assert "between relays and server" in place(*arguments)
    assert "relay north" in place(*arguments)
    # Further copies are chosen for the same links.
    more = json.loads(place("--from", str(file), "--add=2", "--json"))
    sums = [Fraction(each["uplink_load"]) + Fraction(each["downlink_load"]) for each in more["additions"]]
    assert sums == sorted(sums, reverse=True)
    with pytest.raises(UsageError, match="--minimise must be load for a placement with relays"):
        place("--from", str(file), "--minimise=cost")
    with pytest.raises(UsageError, match="--speeds cannot be given with --relays"):
        place(*arguments, "--speeds=1,1,1,1")
