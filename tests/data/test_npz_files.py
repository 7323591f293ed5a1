from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.table_files import read_file

from asyncdmtl.errors import DataError

NAN = float("nan")


def test_npz_has_its_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    X = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    np.savez(path, X=X, y=[True, False, True], tasks=[1, 2, 2], sample_weight=[1, 2, 3], other=[1])
    assert read_file(path, key="tasks") == {
        "x0": [1.0, 3.0, 5.0],
        "x1": [2.0, 4.0, 6.0],
        "y": ["True", "False", "True"],
        "tasks": ["1", "2", "2"],
        "sample_weight": [1.0, 2.0, 3.0],
    }
    np.savez(path, X=X, y=["a", "b", "c"], tasks=["u", " v", ""], feature_names=["p", "q"])
    assert read_file(path, key="tasks", only={"q", "y"}) == {
        "q": [2.0, 4.0, 6.0],
        "y": ["a", "b", "c"],
        "tasks": ["u", "v", None],
    }


@pytest.mark.parametrize(
    "arrays",
    [
        {"y": [1], "tasks": [1]},
        {"X": [1.0], "tasks": [1]},
        {"X": [["a"]], "tasks": [1]},
        {"X": [[1.0]], "y": [1]},
        {"X": [[1.0]], "tasks": [1, 2]},
        {"X": [[1.0]], "tasks": [1], "y": [[1]]},
        {"X": [[1.0]], "tasks": [1], "feature_names": ["a", "b"]},
        {"X": [[1.0]], "tasks": [1], "feature_names": ["tasks"]},
        {"X": [[1.0]], "tasks": [None]},
    ],
)
def test_npz_that_makes_no_sense_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"a\.npz"):
        read_file(path, key="tasks")
