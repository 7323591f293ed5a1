from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.learning.metric_sums import Probabilities, SquaredErrors
from asyncdmtl.learning.problem import Problem
from asyncdmtl.report.held_back import report_tests

SETTINGS = make_settings()
INFOS = [replace(part.info(SETTINGS), held=2) for part in make_partitions(5, "squared")]
PROBLEM = Problem(SETTINGS, INFOS)


def sums(error: float, **more: float) -> SquaredErrors:
    return SquaredErrors.of(
        np.array([1.0, 3.0]), {k: np.array([1.0, 3.0 + e]) for k, e in {"coupled": error, **more}.items()}
    )


def test_scores_are_of_tasks_and_of_all_rows() -> None:
    told = {f"p{n}": sums(float(n), pooled=1.0) for n in range(4)}
    made = report_tests(PROBLEM, told)
    assert made is not None
    assert (made["name"], made["higher_is_better"], made["also"]["name"]) == ("RMSE", False, "R²")
    assert made["tasks"]["t1"]["coupled"] == pytest.approx(np.sqrt((4 + 9) / 4))
    assert made["tasks"]["t1"]["test_rows"] == 4
    assert made["tasks"]["t1"]["rows"] == INFOS[2].rows + INFOS[3].rows
    assert "t2" not in made["tasks"]
    assert made["all_rows"] == {
        "coupled": pytest.approx(np.sqrt(14 / 8)), "pooled": pytest.approx(np.sqrt(4 / 8))
    }  # fmt: skip


def test_kinds_that_somebody_did_not_test_are_left_out() -> None:
    made = report_tests(PROBLEM, {"p0": sums(1.0, pooled=1.0), "p2": sums(1.0)})
    assert made is not None
    assert set(made["mean"]) == {"coupled"}


def test_without_test_rows_there_is_nothing_to_report() -> None:
    assert report_tests(PROBLEM, {}) is None


def test_classifications_have_further_scores_too() -> None:
    settings = make_settings(loss="logistic")
    problem = Problem(settings, [replace(p.info(settings), held=2) for p in make_partitions(2, "logistic")])
    told = {f"p{n}": Probabilities.of(np.array([0.0, 1.0]), {"coupled": np.array([-n, 1.0])}) for n in (0, 1)}
    made = report_tests(problem, told)
    assert made is not None
    names = [each["name"] for each in made["further"]]
    assert names == ["average precision", "F1", "log-loss", "Brier score"]
    logs = np.log1p(np.exp([0.0, -1.0, -1.0, -1.0]))
    assert made["further"][2]["all_rows"]["coupled"] == pytest.approx(logs.mean())
    assert report_tests(PROBLEM, {"p0": sums(1.0)})["further"] == []  # type: ignore[index]
