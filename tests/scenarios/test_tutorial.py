"""The commands of the tutorial work as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from support.ports import free_port

from asyncdmtl.data.model_file import SavedModel

PAGE = Path(__file__).resolve().parents[2] / "asyncdmtl" / "docs" / "tutorial.md"
LIMIT = 300.0


def test_the_tutorial_runs(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL)
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    address = f"127.0.0.1:{free_port()}"
    for language, block in blocks:
        if "-m venv" in block:
            continue  # the set-up is this environment's
        script = block.replace("127.0.0.1:7700", address)
        program = [sys.executable, "-c"] if language == "python" else ["bash", "-euc"]
        subprocess.run([*program, script], cwd=tmp_path, env=environment, check=True, timeout=LIMIT)
    tables = [tmp_path / "north" / "north.csv", tmp_path / "predictions.csv"]
    rows, predictions = (table.read_text(encoding="utf-8").splitlines() for table in tables)
    assert len(rows) == len(predictions)
    models = [SavedModel.load(tmp_path / f"{site}.model").models for site in ("north", "south", "west")]
    assert all(np.array_equal(model.coef_, models[0].coef_) for model in models)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert Fraction(report["uplink"]["measured_load"]) * 2 == Fraction(report["uplink"]["uncoded_load"])
