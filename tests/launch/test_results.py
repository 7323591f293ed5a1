from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import CodingError
from asyncdmtl.launch.results import agreed_models
from asyncdmtl.learning.tasks import TaskModels


def model(tmp_path: Path, name: str, *tasks: str, coef: float = 1.0) -> Path:
    """A file with the models of some tasks, whose coefficients are 1, 2, …"""
    count = len(tasks)
    models = TaskModels(
        tasks, coef * np.arange(1.0, count + 1)[:, None] * np.ones((count, 2)), np.zeros(count), "squared"
    )
    SavedModel(models, Encoding.empty(), make_settings()).save(tmp_path / name)
    return tmp_path / name


def test_models_of_all_workers_are_joined_in_natural_order(tmp_path: Path) -> None:
    files = [model(tmp_path, "0.npz", "t10"), model(tmp_path, "1.npz", "t10", "t2")]
    models, spread = agreed_models(files, exact=True)
    assert models.tasks == ("t2", "t10")
    assert models.coef_[:, 0].tolist() == [2.0, 1.0]
    assert spread == 0.0


def test_models_that_differ_are_a_defect_unless_the_strategy_rounds(tmp_path: Path) -> None:
    files = [model(tmp_path, "0.npz", "t0"), model(tmp_path, "1.npz", "t0", coef=1.25)]
    with pytest.raises(CodingError, match=r"workers of this machine ended with models that differ, by 0\.25"):
        agreed_models(files, exact=True)
    models, spread = agreed_models(files, exact=False)
    assert spread == pytest.approx(0.25)
    assert models.coef_.tolist() == [[1.0, 1.0]]
