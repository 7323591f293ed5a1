from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncdmtl.data.columns import text_column
from asyncdmtl.data.table import TASK, WEIGHT, Table, TableSpec
from asyncdmtl.errors import UsageError


def table(*tasks: str | None) -> Table:
    numbers = np.arange(len(tasks), dtype=np.float64)
    return Table(text_column(tasks), 10.0 * numbers, {"x": numbers + 0.5}, numbers + 1.0)


def test_defaults_are_the_arrays_of_an_npz() -> None:
    spec = TableSpec(("rows.npz",))
    assert (spec.task, spec.target, spec.weight) == (TASK, "y", None) == ("tasks", "y", None)
    assert WEIGHT == "sample_weight"
    assert (spec.test_fraction, spec.parts, spec.omit) == (0.0, 1, ())


def test_names_of_columns_are_compared_in_one_form() -> None:
    # The letter ä as one character, and as an a with a combining diaeresis.
    spec = TableSpec(("a.csv",), "stra\u0308nge", "y", features=("a\u0308",))
    assert spec.task == "str\u00e4nge"
    assert spec.features == ("\u00e4",)
    with pytest.raises(UsageError, match="must be different columns"):
        TableSpec(("a.csv",), "a\u0308", "\u00e4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weight": "even"}, r"class_weight must be 'balanced' or None, got 'even'"),
        ({"files": ()}, r"data must be at least one file, got \(\)"),
        ({"task": "y"}, r"task, target and weight must be different columns, got \['y', 'y'\]"),
        ({"weight": "y"}, r"task, target and weight must be different columns, got \['tasks', 'y', 'y'\]"),
        ({"features": ()}, r"features must be different columns, at least one, got \(\)"),
        ({"features": ("a", "a")}, r"features must be different columns, at least one, got \('a', 'a'\)"),
        ({"features": ("a", "y")}, r"features must not include task, target or weight, as, got \['y'\]"),
        ({"features": ("a",), "omit": ("b",)}, r"omit must not be given with features, got \('b',\)"),
        ({"omit": ("tasks",)}, r"omit must not include task, target or weight, as, got \['tasks'\]"),
        ({"test_fraction": 1.0}, r"test fraction must be at least 0 and below 1, got 1\.0"),
        ({"test_fraction": float("nan")}, "test fraction must be at least 0 and below 1, got nan"),
        ({"test_fraction": "half"}, "test fraction must be at least 0 and below 1, got 'half'"),
        ({"parts": 0}, "parts must be a whole number from 1 on, got 0"),
    ],
)
def test_options_that_break_a_rule_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        TableSpec(**{"files": ("a.csv",)} | changes)


def test_some_rows_are_taken_from_every_column() -> None:
    part = table("a", "b", "c").take(np.array([2, 0]))
    assert part.rows == 2
    assert part.tasks.tolist() == ["c", "a"]
    assert part.target is not None
    assert part.target.tolist() == [20.0, 0.0]
    assert part.columns["x"].tolist() == [2.5, 0.5]
    assert part.weights is not None
    assert part.weights.tolist() == [3.0, 1.0]


def test_rows_to_predict_have_neither_target_nor_weights() -> None:
    part = Table(text_column(["a", "b"]), None, {}, None).take(np.array([1]))
    assert (part.rows, part.target, part.weights) == (1, None, None)


def test_rows_of_tasks_are_ascending_and_tasks_in_natural_order() -> None:
    rows = table("t10", "t2", None, "t10", "t2", "t1").of_tasks()
    assert list(rows) == ["t1", "t2", "t10", ""]
    assert {task: own.tolist() for task, own in rows.items()} == {
        "": [2], "t1": [5], "t2": [1, 4], "t10": [0, 3],
    }  # fmt: skip
    assert table().of_tasks() == {}
