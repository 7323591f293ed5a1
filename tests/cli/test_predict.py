"""`asyncdmtl predict`, as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from asyncdmtl.cli import predict
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import AsyncDMTLError, DataError, UsageError
from asyncdmtl.learning.tasks import TaskModels

ENCODING = Encoding(
    (NumberColumn("age", 40.0, 30.0, 10.0), CategoryColumn("ward", ("A", "B", "C"), False)), {}, "ill", None
)
CLASSES = Encoding(ENCODING.columns, {}, "ill", ("no", "yes"))
# One coefficient for age, three for the ward.
COEF = np.array([[1.0, 10.0, 20.0, 30.0], [-1.0, 0.0, 0.5, 5.0]])
INTERCEPT = np.array([0.25, -1.0])
ROWS = pd.DataFrame(
    {
        "id": ["007", "008", "009", "010", "011"],
        "clinic": ["south", "1", "south", "1", "1"],
        "age": [40.0, 20.0, np.nan, 30.0, 50.0],
        "ward": ["A", "B", "A", "D", "C"],
        "ill": [11.0, 20.0, 15.0, np.nan, 3.0],
    }
)
# x·w + b by hand: standardised ages are 1, −1, 1 (imputed), 0, 2; D is unknown.
SCORES = [-2.0, 19.25, -2.0, 0.25, 32.25]


def saved(folder: Path, loss: str = "squared", encoding: Encoding | None = None) -> str:
    chosen = encoding or (CLASSES if loss == "logistic" else ENCODING)
    models = TaskModels(("1", "south"), COEF, INTERCEPT, loss)
    SavedModel(models, chosen, None, "clinic").save(folder / "model.npz")
    return str(folder / "model.npz")


def rows_in(folder: Path, frame: pd.DataFrame = ROWS) -> str:
    frame.to_csv(folder / "rows.csv", index=False)
    return str(folder / "rows.csv")


def run(*arguments: str) -> Result:
    """Run the command; `execute` turns its errors into exit codes."""
    return CliRunner().invoke(predict.main, arguments, catch_exceptions=False)


def written(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()]


@pytest.mark.filterwarnings("error")
def test_one_prediction_for_every_row_in_order(tmp_path: Path) -> None:
    done = run(saved(tmp_path), rows_in(tmp_path))
    header, *lines = written(done.stdout)
    assert header == ["clinic", "prediction"]
    assert [line[0] for line in lines] == ROWS["clinic"].tolist()
    assert [float(line[1]) for line in lines] == SCORES


def test_no_rows_have_no_predictions(tmp_path: Path) -> None:
    assert written(run(saved(tmp_path), rows_in(tmp_path, ROWS[:0])).stdout) == [["clinic", "prediction"]]


def test_a_folder_for_predictions_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--output must be in a directory that exists"):
        run(saved(tmp_path), rows_in(tmp_path), "--output", str(tmp_path / "none" / "p.csv"))


def test_a_terminal_that_lacks_a_character_gets_no_other_one(tmp_path: Path) -> None:
    rows = ROWS.assign(clinic=["Zürich", *ROWS["clinic"][1:]])
    words = [saved(tmp_path), rows_in(tmp_path, rows), "--unknown=mean"]
    code = "from asyncdmtl.cli import failure, predict; failure.execute(predict.main)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "--output must name a file: stdout is ascii, which has no, got" in done.stderr


def test_as_a_program(tmp_path: Path) -> None:
    code = "from asyncdmtl.cli import failure, predict; failure.execute(predict.main)"
    words = [sys.executable, "-W", "error", "-c", code, saved(tmp_path), rows_in(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert written(done.stdout)[1:] == [
        [task, str(score)] for task, score in zip(ROWS["clinic"], SCORES, strict=True)
    ]


def test_unknown_categories_are_told(tmp_path: Path) -> None:
    done = run(saved(tmp_path), rows_in(tmp_path))
    assert "column 'ward': 1 of 5 values were in no training row (such as 'D')" in done.stderr


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("no", "yes"), ["no", "yes", "no", "yes", "yes"]), (("1", "2.5"), [1, 2.5, 1, 2.5, 2.5])],
)
def test_classes_as_they_were_called(tmp_path: Path, classes: Any, expected: list[Any]) -> None:
    encoding = Encoding(ENCODING.columns, {}, "ill", classes)
    output = tmp_path / "predictions.parquet"
    run(saved(tmp_path, "logistic", encoding), rows_in(tmp_path), "--output", str(output), "--proba")
    frame = pd.read_parquet(output)
    assert frame["prediction"].tolist() == expected
    low, high = (frame[f"probability_{name}"] for name in classes)
    assert high.tolist() == pytest.approx([1 / (1 + np.exp(-score)) for score in SCORES])
    assert (low + high).tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("ending", predict.ENDINGS)
def test_output_files_and_kept_columns(tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"predictions{ending}"
    done = run(
        saved(tmp_path), rows_in(tmp_path, ROWS.assign(number=[3, 1, 4, 1, 5])),
        "--output", str(output), "--keep", "id, number,age",
    )  # fmt: skip
    assert done.stdout == f"5 predictions in {output}\n"
    if ending == ".parquet":
        frame = pd.read_parquet(output)
        assert frame["number"].dtype.kind == "i"
    else:
        frame = pd.read_csv(output, dtype={"id": str})
    assert list(frame) == ["clinic", "id", "number", "age", "prediction"]
    assert frame["id"].tolist() == ROWS["id"].tolist()
    assert frame["number"].tolist() == [3, 1, 4, 1, 5]
    assert frame["age"].isna().tolist() == ROWS["age"].isna().tolist()
    assert frame["prediction"].tolist() == SCORES


def test_many_files_and_another_name_of_the_task(tmp_path: Path) -> None:
    renamed = ROWS.rename(columns={"clinic": "site"})
    for name, part in (("a", renamed[:2]), ("b", renamed[2:])):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    done = run(saved(tmp_path), str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--task=site")
    assert written(done.stdout)[0] == ["site", "prediction"]
    assert [float(line[1]) for line in written(done.stdout)[1:]] == SCORES


def test_tasks_that_the_model_does_not_know(tmp_path: Path) -> None:
    model, rows = saved(tmp_path), rows_in(tmp_path, ROWS.replace({"clinic": {"south": "east"}}))
    with pytest.raises(DataError, match=r"task of row 1 must be one of the 2 tasks of the model.*got 'east'"):
        run(model, rows)
    mean = [0.0 + 5.0 - 0.375, SCORES[1], 5.0 - 0.375, SCORES[3], SCORES[4]]
    done = run(model, rows, "--unknown=mean")
    assert [float(line[1]) for line in written(done.stdout)[1:]] == pytest.approx(mean)
    done = run(model, rows, "--unknown=empty")
    assert [line[1] for line in written(done.stdout)[1:]] == ["", "19.25", "", "0.25", "32.25"]
    done = run(saved(tmp_path, "logistic"), rows, "--unknown=empty", "--proba", "--json")
    first = json.loads(done.stdout)["predictions"][0]
    assert first == {"clinic": "east", "prediction": None, "probability_no": None, "probability_yes": None}


def test_scores_where_there_is_a_target(tmp_path: Path) -> None:
    model, rows = saved(tmp_path), rows_in(tmp_path)
    done = run(model, rows, "--score", "--json", "--unknown=mean")
    content = json.loads(done.stdout)
    assert (content["event"], content["rows"], content["output"]) == ("finished", 5, None)
    assert content["predictions"][1] == {"clinic": "1", "prediction": 19.25}
    metrics = content["metrics"]
    # The fourth row has no target.
    errors = {"1": [20 - 19.25, 3 - 32.25], "south": [11 + 2.0, 15 + 2.0]}
    for task, off in errors.items():
        assert metrics["tasks"][task]["coupled"] == pytest.approx(np.sqrt(np.mean(np.square(off))))
        assert metrics["tasks"][task]["test_rows"] == 2
    everything = np.concatenate(list(errors.values()))
    assert metrics["all_rows"]["coupled"] == pytest.approx(np.sqrt(np.mean(everything**2)))
    done = run(model, rows, "--score")
    assert "prediction" in done.stdout
    assert "RMSE" not in done.stdout
    assert "Test RMSE" in done.stderr
    output = tmp_path / "out.csv"
    done = run(model, rows, "--score", "--output", str(output))
    assert "Test RMSE" in done.stdout
    done = run(model, rows, "--score", "--target=age", "--json")
    assert json.loads(done.stdout)["metrics"]["tasks"]["1"]["test_rows"] == 3


def test_scores_of_a_classification(tmp_path: Path) -> None:
    labelled = ROWS.assign(ill=["no", "yes", "yes", "no", None])
    done = run(saved(tmp_path, "logistic"), rows_in(tmp_path, labelled), "--score", "--json")
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["name"] == "ROC AUC"
    assert metrics["tasks"]["1"]["coupled"] == 1.0
    assert metrics["also"]["all_rows"] == {"coupled": 0.5}
    with pytest.raises(DataError, match="target 'ill' must be 'no' or 'yes', got 'maybe'"):
        run(saved(tmp_path, "logistic"), rows_in(tmp_path, labelled.assign(ill="maybe")), "--score")


def test_a_model_of_numbers_predicts_numbers(tmp_path: Path) -> None:
    models = TaskModels(("1", "south"), COEF, INTERCEPT, "squared")
    SavedModel(models, Encoding.empty(), None).save(tmp_path / "model.npz")
    X = np.arange(8.0).reshape(2, 4)
    np.savez(tmp_path / "rows.npz", X=X, tasks=np.array(["south", "1"]), y=np.zeros(2))
    done = run(str(tmp_path / "model.npz"), str(tmp_path / "rows.npz"), "--score", "--json")
    predicted = [row["prediction"] for row in json.loads(done.stdout)["predictions"]]
    assert predicted == pytest.approx([COEF[1] @ X[0] - 1.0, COEF[0] @ X[1] + 0.25])
    frame = pd.DataFrame(X, columns=["x0", "x1", "x2", "x3"]).assign(tasks=["south", "1"])
    frame.loc[1, "x2"] = np.nan
    with pytest.raises(DataError, match=r"column 'x2' must have a value in every row .* got 2"):
        run(str(tmp_path / "model.npz"), rows_in(tmp_path, frame))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--task=site"], "'site'"),
        (["--keep=name"], "column 'name'"),
        (["--keep=clinic"], "--keep must be none of clinic, prediction"),
        (["--keep=id,id"], "--keep must be none of clinic, prediction, and each once"),
        (["--proba"], "--proba needs a model of logistic loss"),
        (["--output=out.txt"], "--output must end in"),
        (["--output=no/such/folder/out.csv"], "--output must be"),
        (["--score", "--target=height"], "column 'height'"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], rule: str) -> None:
    frame = ROWS.assign(prediction=1.0)
    with pytest.raises(UsageError) as caught:
        run(saved(tmp_path), rows_in(tmp_path, frame), *arguments)
    assert rule in str(caught.value)


def test_files_that_make_no_sense(tmp_path: Path) -> None:
    model, rows = saved(tmp_path), rows_in(tmp_path)
    with pytest.raises(DataError, match="model file must be as asyncdmtl saved it"):
        run(rows, rows)
    with pytest.raises(DataError, match="must have a column 'ward'"):
        run(model, rows_in(tmp_path, ROWS.drop(columns="ward")))
    with pytest.raises(AsyncDMTLError, match="column 'age' must be numbers, got 'old'"):
        run(model, rows_in(tmp_path, ROWS.assign(age=["old", "1", "2", "3", "4"])))
    with pytest.raises(DataError, match=r"task of row 1 must be one of the 2 tasks .* got None"):
        run(model, rows_in(tmp_path, ROWS.assign(clinic=["", "1", "1", "1", "1"])))


def test_rows_without_a_task_are_those_of_an_unknown_one(tmp_path: Path) -> None:
    model, rows = saved(tmp_path), rows_in(tmp_path, ROWS.assign(clinic=["", "1", "south", "1", "1"]))
    done = run(model, rows, "--unknown=empty")
    assert written(done.stdout)[1:3] == [["", ""], ["1", "19.25"]]
    done = run(model, rows, "--unknown=mean")
    assert float(written(done.stdout)[1][1]) == pytest.approx(5.0 - 0.375)


def test_a_column_called_prediction_keeps_its_name(tmp_path: Path) -> None:
    renamed = rows_in(tmp_path, ROWS.rename(columns={"clinic": "prediction"}))
    done = run(saved(tmp_path), renamed, "--task=prediction")
    assert written(done.stdout)[0] == ["prediction", "model_prediction"]
    kept = run(saved(tmp_path), rows_in(tmp_path, ROWS.assign(prediction=1)), "--keep=prediction")
    assert written(kept.stdout)[0] == ["clinic", "prediction", "model_prediction"]


def test_columns_to_keep_may_have_commas_in_their_names(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, ROWS.assign(**{"a, b": 1, "c": 2}))
    for keep in (["--keep", '"a, b",c'], ["--keep", "a, b", "--keep", "c"]):
        assert json.loads(run(saved(tmp_path), rows, "--json", *keep).stdout)["predictions"][0].keys() == {
            "clinic", "a, b", "c", "prediction"
        }  # fmt: skip


def test_tasks_and_classes_are_found_in_any_spelling(tmp_path: Path) -> None:
    encoding = Encoding(ENCODING.columns, {}, "ill", ("FALSE", "TRUE"))
    rows = rows_in(
        tmp_path, ROWS.assign(clinic=["south", "1.0", "south ", "1e0", "1"], ill=[True, False] * 2 + [True])
    )
    done = run(saved(tmp_path, "logistic", encoding), rows, "--score", "--json")
    content = json.loads(done.stdout)
    assert {row["prediction"] for row in content["predictions"]} == {"FALSE", "TRUE"}
    assert set(content["metrics"]["tasks"]) == {"1", "south"}


def test_a_single_model_needs_no_column_of_tasks_and_rows_may_come_on_stdin(tmp_path: Path) -> None:
    models = TaskModels(("south",), COEF[1:], INTERCEPT[1:], "squared")
    SavedModel(models, ENCODING, None, "clinic").save(tmp_path / "one.npz")
    rows = ROWS.drop(columns=["clinic", "ill"])
    done = run(str(tmp_path / "one.npz"), rows_in(tmp_path, rows))
    expected = [
        ["clinic", "prediction"],
        *(["south", text] for text in ("-2.0", "0.5", "-2.0", "-1.0", "2.0")),
    ]
    assert written(done.stdout) == expected
    with pytest.raises(DataError, match="must have a column 'clinic'"):
        run(saved(tmp_path), rows_in(tmp_path, rows))
    text = rows.to_csv(index=False)
    for name in ("-", "/dev/stdin"):
        piped = CliRunner().invoke(predict.main, [str(tmp_path / "one.npz"), name], input=text)
        assert written(piped.stdout) == expected


def test_counts_are_powers_of_scores(tmp_path: Path) -> None:
    model, counts = saved(tmp_path, "poisson"), ROWS.assign(ill=[1.0, 0.0, 2.0, np.nan, 3.0])
    found = json.loads(run(model, rows_in(tmp_path, counts), "--score", "--format", "json").stdout)
    predicted = [each["prediction"] for each in found["predictions"]]
    np.testing.assert_allclose(predicted, np.exp(SCORES))
    assert found["metrics"]["name"] == "Poisson deviance"
    with pytest.raises(DataError, match="targets of column 'ill' must be at least 0 for poisson loss"):
        run(model, rows_in(tmp_path, counts.assign(ill=-1.0)), "--score")
