"""The picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.problems import make_settings
from support.reports import PARTITIONS, full_report, make_metrics, make_report

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.training import train
from asyncdmtl.report import run_pictures
from asyncdmtl.report.pictures import new_figure
from asyncdmtl.report.run_pictures import plot_run


@pytest.fixture(scope="module")
def report_of_a_run() -> dict[str, Any]:
    return full_report()


def drawn(axes: Axes) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    return [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in axes.lines]


def test_a_picture_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report_of_a_run: dict[str, Any]
) -> None:
    figures = []
    make = new_figure

    def remember(width: float, height: float) -> Figure:
        figures.append(make(width, height))
        return figures[-1]

    monkeypatch.setattr(run_pictures, "new_figure", remember)
    settings = make_settings(rounds=3)
    model = SavedModel(train(PARTITIONS, settings).models, Encoding.empty(), settings)
    plot_run(report_of_a_run, tmp_path / "run.svg", model)
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
    pair = new_figure(5, 5).subplots(1, 2)
    run_pictures._draw_curve(pair, {**report_of_a_run, "metrics": metrics, "learning_curve": curve})
    for axes in pair:
        low, high = axes.get_ylim()
        assert low < 4.0 < 4.1 < high
        assert (low < pooled < high) == (pooled < 4.0)
        assert axes.lines[-1].get_label() == f"pooled (one model), {label}"


async def test_a_picture_of_a_run_without_scores_or_models(tmp_path: Path) -> None:
    made, _ = await make_report(make_settings(rounds=1))
    plot_run(made, tmp_path / "run.pdf")
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF")


def test_a_picture_of_many_tasks_names_some() -> None:
    axes = new_figure(5, 5).subplots()
    run_pictures._draw_gains(
        axes, {"metrics": make_metrics([*((-1) ** t * t / 100 for t in range(139)), None])}
    )
    coupled, alone, _ = drawn(axes)
    assert len(coupled) == len(alone) == 140
    assert np.isnan(coupled[-1][1])
    assert 20 <= len(axes.get_xticks()) <= 25
