"""The picture of a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.problems import make_settings
from support.reports import PARTITIONS, full_report, make_metrics, make_report

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.training import train
from asyncdmtl.report import run_pictures
from asyncdmtl.report.pictures import new_figure
from asyncdmtl.report.run_pictures import draw_run, plot_run


@pytest.fixture(scope="module")
def report_of_a_run() -> dict[str, Any]:
    return full_report()


def drawn(axes: Axes) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    return [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in axes.lines]


def panels(figure: Figure) -> dict[str, Axes]:
    """Panels by their title."""
    return {axes.get_title(): axes for axes in figure.axes if axes.axison and axes.get_title()}


def test_a_picture_of_a_run(tmp_path: Path, report_of_a_run: dict[str, Any]) -> None:
    settings = make_settings(rounds=3)
    model = SavedModel(train(PARTITIONS, settings).models, Encoding.empty(), settings)
    plot_run(report_of_a_run, tmp_path / "run.svg", model, "marks.csv")
    assert b"<svg" in (tmp_path / "run.svg").read_bytes()
    figure = draw_run(report_of_a_run, model, "marks.csv")
    headline = "marks.csv: relay, 3 workers, 2 copies; coupling nuclear, λ = 0.05; 30 rounds"
    assert figure.get_suptitle() == headline
    found = panels(figure)
    assert len(found) == 6
    rounds, metrics = report_of_a_run["rounds"], report_of_a_run["metrics"]
    (objective,) = drawn(found["Training: objective"])
    expected = [*(entry["objective"] for entry in rounds[1:]), metrics["objective"]]
    assert objective == list(zip(range(1, 31), expected, strict=True))
    curve, alone, pooled = drawn(found["Test RMSE in training"])
    assert curve[-1] == pytest.approx((30, metrics["mean"]["coupled"]))
    assert {y for _, y in alone} == {metrics["mean"]["single_task"]}
    assert {y for _, y in pooled} <= {metrics["mean"]["pooled"]}
    up, down = drawn(found["Traffic of each round, all workers together"])
    assert up == [(entry["round"] + 1, entry["up_bytes"] / 1e3) for entry in rounds]
    assert down == [(entry["round"] + 1, entry["down_bytes"] / 1e3) for entry in rounds]


def test_the_upper_axis_shows_the_bytes_that_were_sent(report_of_a_run: dict[str, Any]) -> None:
    axes = panels(draw_run(report_of_a_run))["Training: objective"]
    (above,) = axes.child_axes
    first, total = (
        sum(e["up_bytes"] + e["down_bytes"] for e in report_of_a_run["rounds"][:n]) for n in (1, 30)
    )
    low, high = above.get_xlim()
    ends = np.interp([1, 30], axes.get_xlim(), [low, high])
    assert low < first / 1e6 < total / 1e6 < high
    assert len(ends) == 2
    assert run_pictures._interpolated([0, 1, 5, 10], [0, 1, 5], [0.0, 2.0, 4.0]).tolist() == [0, 2, 4, 8]


def check_lines(axes: Axes) -> None:
    """Check that every point of every line is in its panel and not below the legend."""
    panel, legend = axes.get_window_extent(), axes.get_legend()
    for line in axes.lines:
        points = np.asarray(line.get_xydata())
        level = points.shape == (2, 2) and points[:, 0].tolist() == [0.0, 1.0]
        if level:  # across the whole panel, whose width is 1
            points[:, 0] = axes.get_xlim()
        for x, y in axes.transData.transform(points[np.isfinite(points).all(axis=1)]):
            assert panel.x0 - 1 <= x <= panel.x1 + 1
            assert panel.y0 - 1 <= y <= panel.y1 + 1
            assert legend is None or not legend.get_window_extent().contains(x, y)


def check_labels(labels: Sequence[Text], axes: Axes) -> None:
    """Check that visible tick labels do not overlap."""
    panel = axes.get_window_extent()
    extents = [label.get_window_extent() for label in labels if label.get_text()]
    extents = [e for e in extents if panel.x0 - 40 <= e.x0 and e.x1 <= panel.x1 + 40]
    assert not any(a.overlaps(b) for a, b in combinations(extents, 2))


@pytest.mark.parametrize(("tasks", "rounds"), [(6, 1), (10, 150), (139, 1000)])
def test_nothing_is_cut_off_or_covered(report_of_a_run: dict[str, Any], tasks: int, rounds: int) -> None:
    rng = np.random.default_rng(tasks)
    metrics = make_metrics([*rng.normal(0.1, 0.3, tasks)])
    metrics["objective"] = 1.0
    once = report_of_a_run["rounds"][5]
    made = [once | {"round": r, "objective": 1.0 + 5.0 / (r + 1)} for r in range(rounds)]
    curve = [{"rounds": r, "mean": 0.875 + 30.0 / r**2} for r in range(1, rounds + 1, max(1, rounds // 60))]
    figure = draw_run({**report_of_a_run, "rounds": made, "metrics": metrics, "learning_curve": curve})
    figure.draw_without_rendering()
    found = panels(figure)
    for axes in found.values():
        check_lines(axes)
        for shown in (axes, *axes.child_axes):
            check_labels(shown.get_xticklabels(), axes)
            check_labels(shown.get_yticklabels(), axes)
    boxes = [box for axes in found.values() if (box := axes.get_tightbbox()) is not None]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    if rounds < run_pictures.FEWEST_ROUNDS:
        assert "Traffic of the run: 1 round" in found
        assert "Training: objective" not in found
    else:
        traffic = found["Traffic of each round, all workers together"]
        assert all(float(tick).is_integer() for tick in traffic.get_xticks())


def test_cross_validation_is_drawn_with_its_choice(report_of_a_run: dict[str, Any]) -> None:
    found = {"strengths": [1.0, 0.1], "mean_loss": [3.0, 2.0], "standard_error": [0.5, 0.25]}
    selection = {"coupling": "l21", "strength": 0.1, "couplings": {"l21": found, "nuclear": found}}
    figure = draw_run({**report_of_a_run, "selection": selection})
    axes = panels(figure)["Cross-validation across sites"]
    assert drawn(axes)[0] == [(0.1, 2.0), (1.0, 3.0)]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["chosen: l21, λ = 0.1", "l21", "nuclear"]
    assert axes.get_yscale() == "linear"


def test_each_coupling_is_drawn_with_its_better_intercept(report_of_a_run: dict[str, Any]) -> None:
    def curve(*loss: float) -> dict[str, Any]:
        return {
            "strengths": [1.0, 0.1][: len(loss)],
            "mean_loss": list(loss),
            "standard_error": [0.5] * len(loss),
        }

    couplings = {
        "l21": curve(3.0, 2.5), "mean": curve(2.8),
        "l21, penalised intercept": curve(3.0, 2.0), "mean, penalised intercept": curve(2.9),
    }  # fmt: skip
    selection = {"coupling": "l21", "strength": 0.1, "couplings": couplings}
    axes = panels(draw_run({**report_of_a_run, "selection": selection}))["Cross-validation across sites"]
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["mean", "chosen: l21, λ = 0.1", "l21, penalised intercept"]


def test_weak_strengths_do_not_hide_the_other_ones(report_of_a_run: dict[str, Any]) -> None:
    found = {"strengths": [1.0, 0.1], "mean_loss": [3.0, 300.0], "standard_error": [0.5, 900.0]}
    selection = {"coupling": "l21", "strength": 1.0, "couplings": {"l21": found}}
    axes = panels(draw_run({**report_of_a_run, "selection": selection}))["Cross-validation across sites"]
    assert axes.get_yscale() == "log"
    bars = [bar for bar in axes.collections if isinstance(bar, LineCollection)]
    assert min(float(point[1]) for bar in bars for segment in bar.get_segments() for point in segment) > 0.0


@pytest.mark.parametrize(("pooled", "label"), [(1.0, "1.0000"), (9.0, "9.0000 (above)")])
def test_what_does_better_than_coupling_is_in_the_picture(
    report_of_a_run: dict[str, Any], pooled: float, label: str
) -> None:
    mean = {"coupled": 4.0, "single_task": 4.1, "pooled": pooled}
    curve = [{"rounds": n, "mean": 4.0 + 0.1 / n} for n in range(1, 31)]
    metrics = {**report_of_a_run["metrics"], "mean": mean}
    axes = new_figure(5, 5).subplots()
    run_pictures._draw_curve(axes, {**report_of_a_run, "metrics": metrics, "learning_curve": curve})
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
