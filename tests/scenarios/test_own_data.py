"""Training on a user's own data: real files, real processes, real TCP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from asyncdmtl.cli import run
from asyncdmtl.data.loading import load
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.training import train

LIMIT = 120


def clinic(name: str, rows: int, seed: int) -> pd.DataFrame:
    """Patients of one clinic: numbers with gaps, a category, a constant, and a score to predict."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"clinic": name, "age": rng.normal(50, 10, rows), "dose": rng.normal(0.1, 0.02, rows)}
    )
    frame["ward"] = rng.choice(["A", "B", name[0].upper()], rows)
    frame["score"] = 0.3 * frame.age - 50 * frame.dose + (frame.ward == "A") + rng.standard_normal(rows)
    frame.loc[rng.random(rows) < 0.1, "dose"] = np.nan
    frame["country"] = "UK"
    return frame


@pytest.fixture
def clinics() -> dict[str, pd.DataFrame]:
    sizes = {"north": 30, "south": 12, "east": 1, "west": 25}
    return {name: clinic(name, rows, seed) for seed, (name, rows) in enumerate(sizes.items())}


def finished(*arguments: str, module: str = "asyncdmtl") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_first_hour_of_a_data_scientist(tmp_path: Path, clinics: dict[str, pd.DataFrame]) -> None:
    table, model, predictions = (str(tmp_path / name) for name in ("all.csv", "all.model", "predicted.csv"))
    everything = pd.concat(clinics.values())
    everything.to_csv(table, index=False)
    given = {
        "data": table, "task": "clinic", "target": "score", "features": None, "weight": None, "parts": 2,
        "test_fraction": 0.2, "seed": 0,
    }  # fmt: skip
    done = finished(
        "run", "--data", table, "--task=clinic", "--target=score", "--workers=3", "--copies=2",
        "--save", model, "--report", str(tmp_path / "report.json"),
    )  # fmt: skip
    assert done.stderr.count("column 'country' is left out") == 1
    said = " ".join(done.stdout.split())
    assert "solved: the objective is at most" in said
    report = json.loads((tmp_path / "report.json").read_text())
    strength = report["settings"]["strength"]
    coupling = report["settings"]["coupling"]
    assert "Held-out loss by cross-validation (5 folds" in said
    assert f"coupling {coupling}, λ = {strength:.4g}, intercept {report['settings']['intercept']}" in said
    assert f"Loss squared, coupling {coupling}, λ = {strength:.4g}, intercept free." in done.stdout
    assert report["metrics"]["mean"]["coupled"] < 2.0 < everything.score.std()
    assert report["uplink"]["load"] == report["uplink"]["bound"]

    saved = SavedModel.load(model)
    assert saved.settings is not None
    prepared = load(given).prepared(saved.settings)
    twin = train(prepared.partitions, saved.settings).models
    assert saved.models.coef_.tobytes() == twin.coef_.tobytes()
    assert saved.encoding == prepared.encoding
    assert saved.task_column == "clinic"

    finished("predict", model, table, "--output", predictions, "--keep", "score")
    predicted = pd.read_csv(predictions)
    assert predicted.clinic.tolist() == everything.clinic.tolist()
    assert np.sqrt(np.mean((predicted.prediction - everything.score.to_numpy()) ** 2)) < 2.0


@pytest.mark.parametrize(
    ("same", "given", "coupling"),
    [(True, [], "mean"), (False, [], "covariance"), (True, ["--coupling=nuclear"], "nuclear")],
)
def test_the_coupling_of_a_table_is_chosen_by_its_rows(
    tmp_path: Path, same: bool, given: list[str], coupling: str
) -> None:
    rng = np.random.default_rng(0)
    common, lines = np.array([3.0, -2.0, 1.0, 2.0]), ["t,y,a,b,c,d"]
    for t in range(10):
        # True models are nearly equal, or multiples of one model with either sign.
        w = common + 0.1 * rng.standard_normal(4) if same else common * rng.standard_normal()
        for x in rng.standard_normal((8, 4)):
            lines.append(f"t{t},{x @ w + rng.standard_normal()},{','.join(map(str, x))}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    done = finished(
        "run", "--data", str(tmp_path / "a.csv"), "--task=t", "--target=y", "--workers=1", "--rounds=5",
        *given,
    )  # fmt: skip
    assert f"coupling {coupling}, " in done.stdout
    words = " ".join(done.stdout.split())
    assert re.search(rf"no row left its site\): {coupling}(, penalised intercept)?(:| at λ = )", words)
    if not given:
        assert "The held-out loss is less than that of single-task training (ridge" in words


def test_a_strength_that_cannot_be_chosen_must_be_given(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("t,x,y\na,1,2\na,2,4\nb,5,1\n")
    with pytest.raises(UsageError, match="--strength must be given: with a single row to train on"):
        CliRunner().invoke(
            run.main,
            ["--data", str(tmp_path / "two.csv"), "--task=t", "--target=y", "--test-fraction=0.5"],
            catch_exceptions=False,
        )


def test_a_learner_that_cannot_train_on_a_task_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("t,x,y\na,1,no\na,2,no\na,3,yes\nb,5,no\nb,6,yes\n")
    options = ["--task=t", "--target=y", "--test-fraction=0", "--update=model"]
    for learner, complaint in (
        ("LogisticRegression", "task 'a', partition 'p1': labels must be both 0 and 1"),
        ("SGDRegressor", "learner must be one of SGDClassifier"),
    ):
        with pytest.raises(UsageError, match=complaint):
            CliRunner().invoke(
                run.main,
                ["--data", str(tmp_path / "two.csv"), *options, "--learner", learner],
                catch_exceptions=False,
            )


def test_sites_train_together_on_files_of_their_own(tmp_path: Path, clinics: dict[str, pd.DataFrame]) -> None:
    stored = {"w0": ["north", "south"], "w1": ["south", "east", "west"], "w2": ["west", "north", "east"]}
    for worker, names in stored.items():
        (tmp_path / worker).mkdir()
        for name in names:
            clinics[name].to_csv(tmp_path / worker / f"{name}.csv", index=False)
    server = subprocess.Popen(
        [
            sys.executable, "-m", "asyncdmtl.server", "--listen=127.0.0.1:0", "--loss=squared",
            "--strength=0.3", "--workers=3", "--dtype=float64", "--format=json",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    listening = json.loads(server.stdout.readline())
    workers = [
        subprocess.Popen(
            [
                sys.executable, "-m", "asyncdmtl.worker", "--connect", f"127.0.0.1:{listening['port']}",
                "--name", worker, "--data", str(tmp_path / worker / "*.csv"), "--task=clinic",
                "--target=score", "--save", str(tmp_path / f"{worker}.model"),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for worker in stored
    ]  # fmt: skip
    for process in (*workers, server):
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, err
    saved = [SavedModel.load(tmp_path / f"{worker}.model") for worker in stored]
    assert len({each.models.coef_.tobytes() for each in saved}) == 1
    assert len({str(each.encoding.as_dict()) for each in saved}) == 1

    # The same partitions at one place give the same models as at separate sites.
    here = tmp_path / "all"
    here.mkdir()
    for name, frame in clinics.items():
        frame.to_csv(here / f"{name}.csv", index=False)
    own = finished(
        "run", "--data", str(here / "*.csv"), "--task=clinic", "--target=score", "--test-fraction=0",
        "--parts=1", "--strength=0.3", "--dtype=float64", "--workers=2", "--copies=1",
        "--save", str(tmp_path / "own.model"),
    )  # fmt: skip
    assert "uplink" in own.stdout
    other = SavedModel.load(tmp_path / "own.model")
    assert other.encoding == saved[0].encoding
    assert other.models.tasks == saved[0].models.tasks
    assert other.models.coef_ == pytest.approx(saved[0].models.coef_, abs=1e-9)


def test_what_cannot_be_trained_on_is_named(tmp_path: Path, clinics: dict[str, pd.DataFrame]) -> None:
    table = tmp_path / "all.csv"
    pd.concat(clinics.values()).to_csv(table, index=False)
    for options, complaint in (
        (["--task=clinics", "--target=score"], "'clinics'"),
        (["--task=clinic", "--target=ward"], "target 'ward'"),
        (["--task=clinic"], "--target must name a column"),
        (["--task=clinic", "--target=score", "--features=age,height"], "'height'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "asyncdmtl", "run", "--data", str(table), *options],
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_balanced_classes_give_the_models_of_scikit_learn(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(rng.normal(size=(160, 2)), columns=["x", "z"]).assign(t=np.repeat(["a", "b"], 80))
    frame["y"] = np.where(frame.x - frame.z + rng.normal(size=160) > 1.2, "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    finished(
        "run", "--data", str(tmp_path / "rows.csv"), "--task=t", "--target=y", "--class-weight=balanced",
        "--raw", "--coupling=ridge", "--strength=0.1", "--tolerance=1e-12", "--test-fraction=0",
        "--workers=2", "--copies=1", "--save", str(tmp_path / "model.npz"),
    )  # fmt: skip
    models = SavedModel.load(tmp_path / "model.npz").models
    for t, (_, own) in enumerate(frame.groupby("t")):
        # The loss of a task is a mean over its rows, whose weights sum to their number.
        expected = LogisticRegression(
            C=1.0 / (0.1 * len(own)), class_weight="balanced", tol=1e-10, max_iter=1000
        )
        expected.fit(own[["x", "z"]], own.y)
        np.testing.assert_allclose(models.coef_[t], expected.coef_[0], atol=1e-6)
        assert models.intercept_[t] == pytest.approx(expected.intercept_[0], abs=1e-6)


def test_balanced_classes_need_a_loss_of_classes(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("t,x,y\n" + "".join(f"a,{i},{i % 2}\n" for i in range(9)))
    words = ["--data", str(tmp_path / "rows.csv"), "--task=t", "--target=y", "--class-weight=balanced"]
    done = CliRunner().invoke(run.main, [*words, "--loss=squared"])
    assert isinstance(done.exception, UsageError)
    assert "--class-weight is for losses of classes, and the loss is squared" in str(done.exception)
