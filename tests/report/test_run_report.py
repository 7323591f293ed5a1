"""Reports of real runs, and tables of scores."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from support.clusters import run_cluster
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report import pictures, run_report
from asyncdmtl.report.evaluation import evaluate, learning_curve
from asyncdmtl.server.records import RunOptions

PARTITIONS = make_partitions(6, "squared")
TEST = {p.task: (p.X, p.y) for p in make_partitions(6, "squared", seed=1)[::2]}


async def make_report(settings: Settings) -> tuple[dict[str, Any], TaskModels]:
    options = RunOptions(settings, "relay", workers=3)
    record, models = await run_cluster(options, Placement.cyclic(3, 6, 2), PARTITIONS)
    return run_report.traffic(record), models[0]


def shown(function: Any, *arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=110, highlight=False, markup=False, emoji=False)
    function(*arguments, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_a_report_tells_how_training_ended() -> None:
    made, _ = await make_report(make_settings(rounds=4))
    training = made["training"]
    assert (training["rounds"], training["max_rounds"], training["converged"]) == (4, 4, False)
    assert training["objective"] == made["rounds"][-1]["objective"]
    assert training["residual"] == made["rounds"][-1]["residual"]
    # Before the first step nothing has moved.
    assert made["rounds"][0]["residual"] is None
    json.dumps(made, allow_nan=False)
    text = " ".join(shown(run_report.show, made).split())
    assert "4 rounds in" in text
    assert f"objective {training['objective']:.6g}" in text
    assert "converged" not in text


async def test_a_report_of_a_server_that_was_resumed_when_all_rounds_were_made() -> None:
    options = RunOptions(make_settings(rounds=4), "relay", workers=3)
    record, _ = await run_cluster(options, Placement.cyclic(3, 6, 2), PARTITIONS)
    made = run_report.traffic(replace(record, rounds=()))
    assert made["training"]["objective"] is made["training"]["residual"] is None
    assert "0 rounds in" in " ".join(shown(run_report.show, made).split())


async def test_a_report_of_a_run_that_converged() -> None:
    settings = make_settings(rounds=5000, tolerance=1e-2)
    made, models = await make_report(settings)
    twin = train(PARTITIONS, settings)
    training = made["training"]
    assert (training["rounds"], training["converged"]) == (len(twin.objectives), True)
    assert training["residual"] <= 1e-2 * training["objective"]
    made["metrics"] = evaluate(PARTITIONS, TEST, models, settings, "RMSE")
    text = " ".join(shown(run_report.show, made).split())
    expected = f"objective {made['metrics']['objective']:.6g}; converged: by estimate within"
    assert expected in text
    assert "of itself of the least." in text
    made["training"]["residual"] = 0.0
    text = " ".join(shown(run_report.show, made).split())
    assert "ended: the models no longer change in float32; --dtype float64 may bring them further." in text
    made["settings"]["dtype"] = "float64"
    assert "ended: the models no longer change in float64." in " ".join(shown(run_report.show, made).split())


async def test_a_report_of_a_run_that_should_have_converged() -> None:
    made, _ = await make_report(make_settings(rounds=2, tolerance=1e-9))
    assert "--tolerance was not reached" in " ".join(shown(run_report.show, made).split())


def make_metrics(gains: list[float | None], name: str = "RMSE") -> dict[str, Any]:
    """Scores of tasks that gain so much over 1.0."""
    higher = name != "RMSE"
    rows = {
        f"task {t}": {
            "rows": 10 + t, "test_rows": 5, "single_task": 1.0, "pooled": 1.5,
            "coupled": None if gain is None else 1.0 + gain if higher else 1.0 - gain,
        }
        for t, gain in enumerate(gains)
    }  # fmt: skip
    mean = {"coupled": 0.875, "single_task": 1.0, "pooled": 1.25}
    return {
        "name": name,
        "higher_is_better": higher,
        "tasks": rows,
        "mean": mean,
        "all_rows": mean,
        "also": None,
    }


@pytest.mark.parametrize("name", ["RMSE", "ROC AUC"])
def test_a_table_of_scores(name: str) -> None:
    text = shown(run_report.show_metrics, make_metrics([0.5, -0.25, None], name))
    lines = [line.strip("│ ").split("│") for line in text.splitlines() if "task " in line and "│" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0][:3] == ["task 0", "10", "5"]
    assert [line[-1] for line in cells[:3]] == ["+0.5000", "-0.2500", "-"]
    assert "all rows together" in text
    better = "0 of 2" if name == "ROC AUC" else "2 of 2"
    assert f"better than single-task on 1 of 2 tasks, than pooled on {better}." in text


def test_small_scores_keep_their_digits() -> None:
    metrics = {
        "name": "RMSE", "higher_is_better": False, "mean": {"coupled": 1.234567e-6, "single_task": 2e-6},
        "tasks": {"a": {"test_rows": 4, "coupled": 1.234567e-6, "single_task": 2e-6}},
    }  # fmt: skip
    text = shown(run_report.show_metrics, metrics)
    assert "1.23e-06" in text
    assert "+7.65e-07" in text


def test_of_many_tasks_the_best_and_the_worst_are_shown() -> None:
    text = shown(run_report.show_metrics, make_metrics([(-1) ** t * t / 100 for t in range(50)]))
    names = [line.split("│")[1].strip() for line in text.splitlines() if "│ task " in line]
    assert names == [f"task {t}" for t in (*range(48, 28, -2), *range(31, 51, 2))]
    assert "30 tasks are not shown" in text
    assert "…" in text


def test_scores_of_one_kind_of_models() -> None:
    metrics = make_metrics([t / 100 for t in range(30)])
    for row in (*metrics["tasks"].values(), metrics["mean"]):
        for kind in ("single_task", "pooled", "rows"):
            row.pop(kind, None)
    metrics["also"] = {"name": "R²", "mean": {"coupled": 0.5}, "all_rows": {"coupled": None}}
    text = shown(run_report.show_metrics, metrics)
    assert "gain" not in text
    assert "single" not in text
    assert "R², mean over tasks" in text
    names = [line.split("│")[1].strip() for line in text.splitlines() if "│ task " in line]
    assert names == [f"task {t}" for t in (*range(29, 19, -1), *range(9, -1, -1))]


@pytest.mark.parametrize(
    ("coupling", "intercept", "pooled", "advice"),
    [
        ("nuclear", "free", 0.1, "nearer to it: --coupling mean-regularised, with --intercept penalised."),
        ("mean-regularised", "free", 0.1, "nearer to it: --intercept penalised."),
        ("l21", "none", 0.1, "nearer to it: --coupling mean-regularised."),
        ("mean-regularised", "penalised", 0.1, "One model for all does better here (--coupling mean)."),
        ("nuclear", "free", 0.6, ""),
        ("nuclear", "free", None, ""),
    ],
)
def test_where_one_model_for_all_does_better_the_report_says_what_to_try(
    coupling: str, intercept: str, pooled: float | None, advice: str
) -> None:
    scores = {"coupled": 0.5, "single_task": 0.4, "pooled": pooled}
    metrics = {"higher_is_better": False, "mean": scores, "all_rows": scores}
    found = run_report._advice(metrics, {"coupling": coupling, "intercept": intercept})
    assert found.endswith(advice)
    assert bool(found) == bool(advice)


@pytest.mark.parametrize(
    ("payload", "strategy", "words"),
    [
        (
            960,
            "relay",
            "framing is 52% of the uplink's payload; with it, the uplink costs 40% less than uncoded.",
        ),
        (1920, "uncoded", "framing is 26% of the uplink's payload."),
        (0, "relay", None),
        (960, "linear", "framing is 52% of the uplink's payload."),
        (50_000, "relay", None),
    ],
)
def test_framing_that_is_much_beside_small_vectors_is_told(
    report_of_a_run: dict[str, Any], payload: int, strategy: str, words: str | None
) -> None:
    up = {**report_of_a_run["uplink"], "payload_bytes": payload, "framing_bytes": 500, "uncoded_load": "6"}
    vector = {**report_of_a_run["vector"], "uncoded_bytes": 40}
    made = {**report_of_a_run, "uplink": up, "vector": vector, "strategy": strategy}
    made["rounds"] = report_of_a_run["rounds"][:8]
    text = run_report._words(made)
    assert ("framing" in text) == (words is not None)
    assert words is None or words in text


def test_where_nothing_travels_nothing_is_compared(report_of_a_run: dict[str, Any]) -> None:
    assert "No vector travels" not in run_report._words(report_of_a_run)
    none = {"payload_bytes": 0, "load": "0"}
    quiet = {
        key: {**report_of_a_run[key], **none} for key in ("uplink", "downlink_broadcast", "downlink_wire")
    }
    text = run_report._words({**report_of_a_run, **quiet})
    assert text.startswith("No vector travels: every worker has all partitions.\n")
    assert "uncoded." not in text


@pytest.fixture(scope="module")
def report_of_a_run() -> dict[str, Any]:
    import asyncio

    settings = make_settings(rounds=30)
    made, models = asyncio.run(make_report(settings))
    made["metrics"] = evaluate(PARTITIONS, TEST, models, settings, "RMSE")
    made["learning_curve"] = learning_curve(PARTITIONS, TEST, settings, "RMSE", 30)
    return made


FOUND = {
    "nuclear": "nuclear: models of rank 3 of 3",
    "covariance": "covariance: models of rank 3 of 3",
    "sparse-low-rank": "sparse-low-rank: models of rank",
    "l21": "l21: 9 of 9 features are used",
    "mean": "mean: 9 of 9 features are used",
}


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_picture_of_what_the_coupling_found(coupling: str) -> None:
    edges = (("t0", "t1", 1.0),) if coupling == "graph" else ()
    settings = make_settings(coupling=coupling, edges=edges, strength=0.001, rounds=3)
    figure = pictures._figure(5, 5)
    axes = figure.subplots()
    trained = train(PARTITIONS, settings).models
    pictures._draw_structure(figure, axes, SavedModel(trained, Encoding.empty(), settings))
    assert axes.get_title().startswith(FOUND.get(coupling, f"{coupling}: how alike the tasks' models are"))
    W = trained.coef_.astype(np.float64)
    heights = [bar.get_bbox().height for bar in axes.patches if isinstance(bar, Rectangle)]
    if "rank" in axes.get_title() and coupling != "sparse-low-rank":
        assert heights == pytest.approx(np.linalg.svd(W, compute_uv=False))
    elif "features" in axes.get_title():
        assert heights == pytest.approx(sorted(np.linalg.norm(W, axis=0), reverse=True))
        assert {label.get_text() for label in axes.get_xticklabels()} == {f"x{f}" for f in range(9)}
    elif coupling != "sparse-low-rank":
        (image,) = axes.images
        assert np.diag(np.asarray(image.get_array())).tolist() == pytest.approx([1.0, 1.0, 1.0])
        assert {label.get_text() for label in axes.get_xticklabels()} == {"t0", "t1", "t2"}


def drawn(axes: Axes) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    return [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in axes.lines]


def test_a_picture_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report_of_a_run: dict[str, Any]
) -> None:
    figures = []
    make = pictures._figure

    def remember(width: float, height: float) -> Figure:
        figures.append(make(width, height))
        return figures[-1]

    monkeypatch.setattr(pictures, "_figure", remember)
    settings = make_settings(rounds=3)
    model = SavedModel(train(PARTITIONS, settings).models, Encoding.empty(), settings)
    pictures.plot(report_of_a_run, tmp_path / "run.svg", model)
    assert b"<svg" in (tmp_path / "run.svg").read_bytes()
    panels = {axes.get_title(): axes for axes in figures[0].axes if axes.axison and axes.get_title()}
    assert len(panels) == 8
    rounds, metrics = report_of_a_run["rounds"], report_of_a_run["metrics"]
    (objective,) = drawn(panels["Training: objective against rounds"])
    expected = [*(entry["objective"] for entry in rounds[1:]), metrics["objective"]]
    assert objective == list(zip(range(1, 31), expected, strict=True))
    (objective,) = drawn(panels["Training: objective against bytes"])
    total = sum(entry["up_bytes"] + entry["down_bytes"] for entry in rounds)
    assert objective[-1] == pytest.approx((total / 1e6, metrics["objective"]))
    curve, alone, pooled = drawn(panels["Test RMSE against bytes"])
    assert curve[-1] == pytest.approx((total / 1e6, metrics["mean"]["coupled"]))
    assert {y for _, y in alone} == {metrics["mean"]["single_task"]}
    assert {y for _, y in pooled} == {metrics["mean"]["pooled"]}
    up, down = drawn(panels["Traffic of each round, all workers together"])
    assert up == [(entry["round"] + 1, entry["up_bytes"] / 1e3) for entry in rounds]
    assert down == [(entry["round"] + 1, entry["down_bytes"] / 1e3) for entry in rounds]


@pytest.mark.parametrize(("pooled", "label"), [(1.0, "1"), (9.0, "9 (above)")])
def test_what_does_better_than_coupling_is_in_the_picture(
    report_of_a_run: dict[str, Any], pooled: float, label: str
) -> None:
    mean = {"coupled": 4.0, "single_task": 4.1, "pooled": pooled}
    curve = [{"rounds": n, "mean": 4.0 + 0.1 / n} for n in range(1, 31)]
    metrics = {**report_of_a_run["metrics"], "mean": mean}
    pair = pictures._figure(5, 5).subplots(1, 2)
    pictures._draw_curve(pair, {**report_of_a_run, "metrics": metrics, "learning_curve": curve})
    for axes in pair:
        low, high = axes.get_ylim()
        assert low < 4.0 < 4.1 < high
        assert (low < pooled < high) == (pooled < 4.0)
        assert axes.lines[-1].get_label() == f"pooled (one model), {label}"


async def test_a_picture_of_a_run_without_scores_or_models(tmp_path: Path) -> None:
    made, _ = await make_report(make_settings(rounds=1))
    pictures.plot(made, tmp_path / "run.pdf")
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF")


def test_a_picture_of_many_tasks_names_some() -> None:
    axes = pictures._figure(5, 5).subplots()
    pictures._draw_gains(axes, {"metrics": make_metrics([*((-1) ** t * t / 100 for t in range(139)), None])})
    coupled, alone, _ = drawn(axes)
    assert len(coupled) == len(alone) == 140
    assert np.isnan(coupled[-1][1])
    assert 20 <= len(axes.get_xticks()) <= 25


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--plot must be a writable file"):
        pictures._save(pictures._figure(1, 1), tmp_path / "nowhere" / "run.png")
