from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.clusters import run_cluster

from asyncdmtl.cli import run
from asyncdmtl.data import loading, recipes
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.launch.threads import merged
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.records import RunOptions

SPEC = "synthetic:tasks=2,rows=12,features=3,parts=2,test_rows=5"
asked: list[tuple[Placement, Settings]] = []


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs in this process, with workers as tasks."""
    asked.clear()

    def in_process(
        placement: Placement, wants: Any, settings: Settings, given: dict[str, Any], shown: Any, tracking: Any
    ) -> Any:
        asked.append((placement, settings))
        options = RunOptions(settings, given["strategy"], len(placement.workers))
        partitions = recipes.load(SPEC, seed=given["seed"]).partitions
        record, models = asyncio.run(run_cluster(options, placement, partitions))
        return record, merged(models, record.problem.tasks), settings, 0.0

    monkeypatch.setattr(run, "_train", in_process)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(run.main, ["--data", SPEC, "--rounds=4", "--strength=0.1", *words])


@pytest.mark.usefixtures("_in_this_process")
def test_the_report_has_scores_of_the_models_that_are_saved(tmp_path: Path) -> None:
    files = {name: tmp_path / f"out{name}" for name in (".json", ".npz", ".svg")}
    done = invoke(
        "--json", "--report", str(files[".json"]), "--save", str(files[".npz"]), "--plot", str(files[".svg"]),
        "--workers=4", "--copies=2",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    assert told["event"] == "finished"
    report = told["report"]
    assert json.loads(files[".json"].read_text()) == report
    assert (report["models_spread"], len(report["rounds"]), report["workers"]) == (0.0, 4, 4)
    assert report["metrics"]["mean"].keys() == {"coupled", "single_task", "pooled"}
    assert report["learning_curve"][-1]["rounds"] == 4
    (placement, settings) = asked[0]
    assert placement == Placement.cyclic(4, 4, 2)
    expected = train(recipes.load(SPEC, seed=0).partitions, settings).models
    assert SavedModel.load(files[".npz"]).models.coef_.tobytes() == expected.coef_.tobytes()
    assert b"<svg" in files[".svg"].read_bytes()


@pytest.mark.usefixtures("_in_this_process")
def test_without_files_the_learning_curve_is_not_computed() -> None:
    report = json.loads(invoke("--json").stdout)["report"]
    assert "metrics" in report
    assert "learning_curve" not in report
    assert "4 rounds in" in " ".join(invoke().stdout.split())


@pytest.mark.usefixtures("_in_this_process")
def test_the_dashboard_of_a_run_is_for_this_machine() -> None:
    done = invoke("--dashboard=0.0.0.0:0")
    assert isinstance(done.exception, UsageError)
    assert "--dashboard must be a loopback address, which `ssh -L` shows" in str(done.exception)
    done = invoke("--dashboard-token-file=token")
    assert "--dashboard-token-file needs --dashboard" in str(done.exception)


def test_outputs_are_checked_before_any_work() -> None:
    for words, message in (
        (["--report", "no/such/folder/r.json"], "--report must be in a directory that exists"),
        (["--plot", "picture.nonsense"], "--plot must end in one of"),
    ):
        done = invoke(*words)
        assert isinstance(done.exception, UsageError)
        assert message in str(done.exception)
    assert asked == []


def loaded() -> loading.Loaded:
    return loading.load(GIVEN)


GIVEN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _options_of_a_command_line() -> None:
    """`GIVEN` has the values of the options for the recipe."""
    context = run.main.make_context("run", ["--data", SPEC])
    GIVEN.clear()
    GIVEN.update(context.params)


@pytest.mark.parametrize(
    ("workers", "copies", "expected"),
    [
        (None, None, Placement.cyclic(5, 4, 3)),
        (2, None, Placement.cyclic(2, 4, 2)),
        (3, 1, Placement.cyclic(3, 4, 1)),
    ],
)
def test_partitions_are_placed_cyclically(workers: int, copies: int, expected: Placement) -> None:
    assert run._placement(loaded(), workers, copies, None) == (expected, ("",) * len(expected.workers), None)


def test_a_placement_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "placement.toml"
    file.write_text('[workers]\na = ["p0", "p1", "p2"]\nb = ["p3"]\n')
    placement, wants, topology = run._placement(loaded(), None, None, file)
    assert placement.as_dict()["b"] == ["p3"]
    assert (wants, topology) == (("", ""), None)
    with pytest.raises(UsageError, match="--placement cannot be given with --workers or --copies"):
        run._placement(loaded(), 2, None, file)
    file.write_text('[workers]\na = ["p0", "p9"]\n')
    with pytest.raises(UsageError, match=r"must store the partitions of .*, p0 to p3, got .*'p9'"):
        run._placement(loaded(), None, None, file)
    with pytest.raises(PlacementError, match="copies must lie between 1 and"):
        run._placement(loaded(), 2, 3, None)


def test_workers_that_want_nothing_are_named_by_the_placement_file(tmp_path: Path) -> None:
    file = tmp_path / "placement.toml"
    file.write_text('[workers]\na = ["p0", "p1"]\nb = ["p2", "p3"]\n[wants]\nb = "none"\n', encoding="utf-8")
    words = ("--placement", str(file), "--update")
    report = json.loads(invoke("--json", *words, "statistics").stdout)["report"]
    assert (report["helpers"], report["models_spread"]) == (["b"], 0.0)
    assert report["downlink_wire"]["measured_load"] == report["downlink_wire"]["load"] == "1"
    refused = invoke(*words, "gradient").exception
    assert "--wants of worker 'b' can be none with --update statistics only" in str(refused)
    refused = invoke(*words, "statistics", "--strategy", "personal").exception
    assert "without one, got ['task 1']" in str(refused)


def test_options_become_words_for_every_worker() -> None:
    given = {
        "log_level": "info",
        "task": None,
        "keep_missing_words": True,
        "header": False,
        "data": ("a", "b"),
    }
    assert run._words(given, *given) == [
        "--log-level", "info", "--keep-missing-words", "--data", "a", "--data", "b",
    ]  # fmt: skip
    assert run._words(given, "task") == []


@pytest.mark.parametrize(
    ("strength", "expected"), [(0.25, 0.25), (None, "that of the recipe")], ids=["given", "recipe"]
)
def test_the_strength_is_that_of_the_option_or_of_the_recipe(strength: Any, expected: Any) -> None:
    content = loaded()
    given = GIVEN | {"strength": strength}
    settings, prepared = run._prepare(content, given)
    assert settings.strength == (content.defaults["strength"] if strength is None else expected)
    assert [partition.id for partition in prepared.partitions] == ["p0", "p1", "p2", "p3"]


def test_a_strength_that_nobody_gives_is_chosen() -> None:
    content = loaded()
    defaults = {name: value for name, value in content.defaults.items() if name != "strength"}
    content = replace(content, defaults=defaults)
    by_run, _ = run._prepare(content, GIVEN | {"update": "statistics"})
    assert by_run.strength is None
    chosen, _ = run._prepare(content, GIVEN | {"update": "gradient", "rounds": 50})
    assert chosen.strength is not None
    assert chosen.strength > 0.0


def test_partitions_of_files_are_placed_by_their_names() -> None:
    parts = recipes.load(SPEC, seed=0).partitions
    named = replace(loaded(), stored=tuple(replace(part, id=f"file/{part.id}") for part in parts))
    placed, _, _ = run._placement(named, 2, 1, None)
    assert placed.partitions == named.ids
    assert placed.as_dict() == {"w0": ["file/p0", "file/p2"], "w1": ["file/p1", "file/p3"]}


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize(
    ("words", "strategy"),
    [(["--copies=1"], "cheapest"), (["--copies=1", "--strategy=relay"], "relay"), (["--copies=2"], "relay")],
)
def test_where_nothing_is_stored_twice_the_cheapest_strategy_is_taken(
    words: list[str], strategy: str
) -> None:
    done = invoke("--workers=4", "--format=json", *words)
    assert done.exit_code == 0, done.exception
    report = json.loads(done.stdout)["report"]
    costs = {name: Fraction(each["unicast_cost"]) for name, each in report["strategies"].items()}
    if strategy == "cheapest":
        strategy = min(costs, key=costs.__getitem__)
        assert costs[strategy] < costs["relay"]
    assert report["strategy"] == strategy
