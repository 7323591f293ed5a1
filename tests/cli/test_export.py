"""`asyncdmtl export`, as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.exported import COLUMNS, TASKS, predicted, saved_model

from asyncdmtl.cli import export
from asyncdmtl.errors import UsageError

pytest.importorskip("onnx")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(export.main, arguments, catch_exceptions=False)


def test_a_model_becomes_a_file_of_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    saved = saved_model("logistic")
    saved.save(tmp_path / "model.npz")
    done = run(str(tmp_path / "model.npz"), "--output", str(tmp_path / "model.onnx"), "--json")
    told = json.loads(done.stdout)
    assert told["inputs"][0] == {"name": "clinic", "type": "text", "shape": ["rows", 1]}
    assert [each["name"] for each in told["outputs"]] == ["prediction", "score", "probabilities"]
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    feed = {"clinic": TASKS[:, None]}
    for value in told["inputs"][1:]:
        cells = COLUMNS[value["name"]]
        feed[value["name"]] = (
            np.array(cells, np.float64)
            if value["type"] == "float64"
            else np.array(["" if cell is None else str(cell) for cell in cells], dtype=object)
        )[:, None]
    assert session.run(["prediction"], feed)[0].tolist() == predicted(saved)["prediction"].tolist()


def test_inputs_and_outputs_are_shown(tmp_path: Path) -> None:
    saved_model("squared").save(tmp_path / "model.npz")
    text = run(str(tmp_path / "model.npz"), "--output", str(tmp_path / "model.onnx"), "--unknown=mean").stdout
    assert "clinic" in text
    assert "(rows, 1)" in text
    assert "(rows,)" in text


def test_files_must_be_writable_onnx(tmp_path: Path) -> None:
    saved_model("squared").save(tmp_path / "model.npz")
    with pytest.raises(UsageError, match=r"--output must end in \.onnx"):
        run(str(tmp_path / "model.npz"), "--output", str(tmp_path / "model.pkl"))
    with pytest.raises(UsageError, match="--output must be in a directory that exists"):
        run(str(tmp_path / "model.npz"), "--output", str(tmp_path / "none" / "model.onnx"))
