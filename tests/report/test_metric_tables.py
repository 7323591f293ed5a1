"""Tables of test scores, and the advice beside them."""

from __future__ import annotations

import pytest
from support.reports import make_metrics, shown

from asyncdmtl.report.metric_tables import advice, show_metrics


@pytest.mark.parametrize("name", ["RMSE", "ROC AUC"])
def test_a_table_of_scores(name: str) -> None:
    text = shown(show_metrics, make_metrics([0.5, -0.25, None], name))
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
    text = shown(show_metrics, metrics)
    assert "1.23e-06" in text
    assert "+7.65e-07" in text


def test_of_many_tasks_the_best_and_the_worst_are_shown() -> None:
    text = shown(show_metrics, make_metrics([(-1) ** t * t / 100 for t in range(50)]))
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
    text = shown(show_metrics, metrics)
    assert "gain" not in text
    assert "single" not in text
    assert "R², mean over tasks" in text
    names = [line.split("│")[1].strip() for line in text.splitlines() if "│ task " in line]
    assert names == [f"task {t}" for t in (*range(29, 19, -1), *range(9, -1, -1))]


@pytest.mark.parametrize(
    ("coupling", "intercept", "pooled", "words"),
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
    coupling: str, intercept: str, pooled: float | None, words: str
) -> None:
    scores = {"coupled": 0.5, "single_task": 0.4, "pooled": pooled}
    metrics = {"higher_is_better": False, "mean": scores, "all_rows": scores}
    found = advice(metrics, {"coupling": coupling, "intercept": intercept})
    assert found.endswith(words)
    assert bool(found) == bool(words)
