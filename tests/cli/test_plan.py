from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from asyncdmtl import Placement
from asyncdmtl.cli import main
from asyncdmtl.errors import PlacementError, PlanError, UsageError
from asyncdmtl.plan.recipe import rebuild_plan

PLACEMENTS = Path(__file__).resolve().parents[2] / "datasets" / "placements"
CYCLIC = str(PLACEMENTS / "cyclic-6x6x3.toml")


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(main.main, ["plan", *arguments])


def explained(*arguments: str) -> dict[str, Any]:
    result = plan(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def test_a_plan_is_explained_with_fractions_as_strings(tmp_path: Path) -> None:
    found = explained(CYCLIC, "--output", str(tmp_path / "plan.json"), "--plot", str(tmp_path / "plan.png"))
    assert (found["strategy"], found["uplink_load"], found["uplink_bound"]) == ("relay", "18/5", "18/5")
    assert (found["downlink_load"], found["downlink_bound"]) == ("3", "3")
    assert found["certificate"] == [[f"w{k}"] for k in range(6)]
    assert found["certificate_value"] == "18/5"
    assert list(found["strategies"]) == ["relay", "central", "personal", "uncoded", "linear"]
    assert list(found["downlinks"]["downlinks"]) == ["tcp", "peers", "multicast"]
    written = json.loads((tmp_path / "plan.json").read_text())
    same = rebuild_plan(written["recipe"], bytes.fromhex(written["digest"]))
    assert same.digest.hex() == found["digest"]
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", sorted(PLACEMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_person_sees_placement_strategies_and_reasons(file: Path) -> None:
    result = plan(str(file))
    assert result.exit_code == 0
    for word in ("Placement: ", "relay", "central", "linear", "least uplink", "Planned: "):
        assert word in " ".join(result.stdout.split())


def test_the_network_and_the_tasks_matter(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        '[workers]\na = ["p0", "p1", "p2"]\nb = ["p2", "p3", "p0"]\nc = ["p1", "p3"]\n'
        '[tasks]\none = ["p0", "p1"]\ntwo = ["p2", "p3"]\n[prices]\na = 1\nb = 1\nc = 5\n'
        "[speeds]\na = 1\nb = 1\nc = 1\n"
    )
    assert explained(str(file), "--network", "multicast")["strategies"]["central"]["downlink_load"] == "2"
    cheap = explained(str(file), "--strategy", "relay", "--minimise", "cost")
    assert cheap["uplink_loads"]["c"] == "0"
    fast = explained(str(file), "--strategy", "relay", "--minimise", "makespan", "--max-overhead", "1/10")
    assert fast["strategy"] == "relay"
    assert fast["strategies"]["relay"]["uplink_load"] == fast["uplink_load"]
    assert Fraction(fast["time_bound"]) > 0
    assert Fraction(fast["times"]["shortest"]) >= Fraction(fast["time_bound"])
    assert "times" not in explained(str(file), "--strategy", "central")
    assert Fraction(cheap["cost_bound"]) == sum(Fraction(cheap["uplink_loads"][w]) for w in "ab")


def test_what_is_known_without_matrices_is_shown_where_they_would_be_too_large(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"workers": Placement.cyclic(251, 1004, 4).as_dict()}))
    result = plan(str(file), "--network", "multicast")
    assert isinstance(result.exception, PlanError)
    assert "vectors are the least uplink" in " ".join(result.stdout.split())


def test_sums_are_for_means(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    stored = {
        w: [f"p{n}" for n in own] for w, own in zip("abcd", ("0347", "0145", "1256", "2367"), strict=True)
    }
    tasks = {"one": [f"p{n}" for n in range(4)], "two": [f"p{n}" for n in range(4, 8)]}
    file.write_text(json.dumps({"workers": stored, "tasks": tasks}))
    found = explained(str(file), "--strategy", "relay")
    assert (found["uplink_load"], found["uplink_bound"], found["aggregated"]) == ("4", "4", [])
    assert found["sums"] == [["p0", "p1"], ["p2", "p3"], ["p4", "p5"], ["p6", "p7"]]
    found = explained(str(file), "--strategy", "relay", "--aggregate", "median")
    assert (found["uplink_load"], found["uplink_bound"], found["sums"]) == ("16/3", "4", [])


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[workers]\n"[/x]" = ["a[b]"]\n"site[north]" = ["a[b]", ":smile:"]\n')
    result = plan(str(file))
    assert result.exit_code == 0
    for name in ("[/x]", "site[north]", "a[b]", ":smile:"):
        assert name in result.stdout


def test_silence_has_its_price() -> None:
    found = explained(CYCLIC, "--silent", "1")
    assert list(found["strategies"]) == ["relay", "central", "linear"]
    assert found["strategies"]["central"]["uplink_load"] == "36/5"
    assert found["uplink_load"] == found["strategies"]["relay"]["uplink_load"]


def test_linear_combinations() -> None:
    found = explained(CYCLIC, "--combinations", "2")
    assert found["strategies"]["linear"]["downlink_load"] == "2"


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        (["no-such-file.toml"], PlacementError, "must be readable"),
        ([CYCLIC, "--max-overhead", "much"], UsageError, "--max-overhead"),
        ([CYCLIC, "--max-overhead", "-1"], UsageError, "--max-overhead"),
        ([CYCLIC, "--minimise", "cost"], UsageError, "needs a table prices"),
        ([CYCLIC, "--combinations", "0"], UsageError, "--combinations"),
        ([CYCLIC, "--silent", "3"], PlacementError, "would be lost"),
        ([CYCLIC, "--silent", "1", "--strategy", "uncoded"], UsageError, "silent is for the strategies"),
        ([CYCLIC, "--output", "/no/such/folder/plan.json"], UsageError, "--output"),
    ],
)
def test_bad_input_is_named(arguments: list[str], error: type[Exception], complaint: str) -> None:
    result = plan(*arguments)
    assert isinstance(result.exception, error)
    assert complaint in str(result.exception)


def test_a_stream_of_jobs_has_delays(tmp_path: Path) -> None:
    file = tmp_path / "speeds.toml"
    file.write_text(
        'workers = {a = ["p", "q"], b = ["q", "r"], c = ["r", "p"]}\nspeeds = {a = 1, b = 2, c = 4}'
    )
    report = explained(
        str(file), "--arrivals", "0.01", "--rounds", "300", "--plot", str(tmp_path / "plan.png")
    )
    rows = report["delays"]["splits"]
    assert list(rows) == ["uniform", "speeds", "silent", "ideal"]
    assert rows["speeds"]["job"] == pytest.approx(300 * rows["speeds"]["round"])
    assert "--arrivals needs a table speeds" in str(plan(CYCLIC, "--arrivals", "1").exception)


def test_loads_become_megabytes_and_seconds() -> None:
    found = explained(CYCLIC, "--features", "99", "--rounds", "10", "--rate", "8")
    relay = found["costs"]["relay"]
    assert relay["uplink_bytes"] == Fraction(found["strategies"]["relay"]["uplink_load"]) * 100 * 8 * 10
    assert relay["seconds"] == (relay["uplink_bytes"] + relay["downlink_bytes"]) / 1e6
    assert "beside uncoded" in plan(CYCLIC, "--features", "99", "--rounds", "10").stdout
    assert "--rounds needs --features" in str(plan(CYCLIC, "--rounds", "10").exception)
    assert "--rate needs --rounds" in str(plan(CYCLIC, "--rate", "10").exception)


RELAYS = (
    '[workers]\na1 = ["p0", "p1", "p2"]\na2 = ["p3", "p4"]\nb1 = ["p2", "p3", "p5"]\nb2 = ["p0", "p1"]\n'
    'c1 = ["p5", "p4"]\n[relays]\nA = ["a1", "a2"]\nB = ["b1", "b2"]\n'
)


def test_relays_are_shown_beside_a_star(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(RELAYS)
    found = explained(str(file), "--strategy", "relay")["hierarchy"]
    server = found["levels"][0]
    assert [server[key] for key in ("uplink_load", "uplink_bound", "downlink_load")] == ["4", "4", "4"]
    links = {link["node"]: link for link in found["links"]}
    assert (links["A"]["up"], links["A"]["down"], links["A"]["star_down"]) == ("2", "1", "7")
    text = " ".join(plan(str(file), "--strategy", "relay").stdout.split())
    assert "Vectors a round on the links to the server: 10 with relays, 23 in a star (57% less)." in text
    assert "With a table speeds of workers and relays" in text


def test_relays_pay_on_thin_links_only(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    for thin, verdict in ((1, "Relays pay"), (100, "Relays do not pay")):
        workers = "".join(f"{name} = 10\n" for name in ("a1", "a2", "b1", "b2", "c1"))
        file.write_text(f"{RELAYS}[speeds]\n{workers}A = {thin}\nB = {thin}\n")
        assert verdict in plan(str(file)).stdout
    # The uplink of the site that sends most is what counts.
    found = explained(str(file), "--minimise", "makespan", "--strategy", "relay")["hierarchy"]
    assert found["times"]["relays"] == "7/10"
    refused = plan(str(file), "--silent", "1")
    assert "--silent cannot be given where FILE has relays" in str(refused.exception)
