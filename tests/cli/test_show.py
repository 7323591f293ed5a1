"""`asyncdmtl show`, as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asyncdmtl.cli import show
from asyncdmtl.cli.predict import Predictor
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import TaskModels

COLUMNS = (NumberColumn("age", 40.0, 30.0, 10.0), CategoryColumn("ward", ("A", "B", "C"), False))
COEF = np.array([[1.0, 10.0, 20.0, 30.0], [-1.0, 0.0, 0.5, 5.0]])


def saved(folder: Path, loss: str = "squared", tasks: int = 2) -> str:
    classes = ("no", "yes") if loss == "logistic" else None
    encoding = Encoding(COLUMNS, {}, "ill", classes, 0.0 if classes else 7.0)
    names = tuple(f"t{t}" for t in range(tasks))
    models = TaskModels(names, np.tile(COEF, (tasks, 1))[:tasks], np.arange(float(tasks)), loss)
    SavedModel(models, encoding, None, "clinic").save(folder / "model.npz")
    return str(folder / "model.npz")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(show.main, arguments, catch_exceptions=False)


def test_coefficients_are_in_the_units_of_the_data(tmp_path: Path) -> None:
    file = saved(tmp_path)
    found = json.loads(run(file, "--format", "json").stdout)
    assert (found["loss"], found["coupling"], found["target"], found["classes"]) == (
        "squared", None, "ill", None,
    )  # fmt: skip
    expected = {"age": 0.1, "ward=A": 10.0, "ward=B": 20.0, "ward=C": 30.0}
    assert found["tasks"]["t0"]["coefficients"] == pytest.approx(expected)
    assert found["tasks"]["t0"]["intercept"] == pytest.approx(0.0 + 7.0 - 3.0)
    (tmp_path / "rows.csv").write_text("clinic,age,ward\nt1,51,B\n")
    predictor = Predictor(SavedModel.load(file))
    table = predictor.read([str(tmp_path / "rows.csv")], "clinic")
    other = found["tasks"]["t1"]
    by_hand = other["intercept"] + 51 * other["coefficients"]["age"] + other["coefficients"]["ward=B"]
    assert predictor.predictions(predictor.scores(table))["prediction"][0] == pytest.approx(by_hand)


def test_a_few_tasks_have_a_column_each(tmp_path: Path) -> None:
    text = run(saved(tmp_path, "logistic")).stdout
    assert "Loss logistic; predicts ill: yes rather than no if the sum is above 0." in text
    assert all(word in text for word in ("t0", "t1", "(intercept)", "ward=B"))
    one = run(saved(tmp_path), "--only", "t1").stdout
    assert "t0" not in one


def test_many_tasks_are_summed_up(tmp_path: Path) -> None:
    text = run(saved(tmp_path, tasks=9)).stdout
    assert "9 tasks; --only TASK shows one" in text
    assert all(word in text for word in ("mean of tasks", "smallest", "largest"))


def test_a_task_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--only must be of the 2 tasks of the model, got 't7'"):
        run(saved(tmp_path), "--only", "t7")


def test_counts_are_predicted_by_powers(tmp_path: Path) -> None:
    text = run(saved(tmp_path, "poisson")).stdout
    assert "Loss poisson; predicts ill: e to the power of the sum." in text
