from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.estimators.rows import TaskRows, is_by_task, task_names

X = np.arange(12.0).reshape(6, 2)
FRAME = pd.DataFrame({"u": [1.0, 2.0], "site": ["a", "b"]})


def test_labels_are_plain_values_whichever_array_they_come_from() -> None:
    for tasks in ([3, 3, 4, 4, 3, 4], np.array([3, 3, 4, 4, 3, 4], np.int8), pd.Series([3, 3, 4, 4, 3, 4])):
        labels = TaskRows.gather(X, tasks).of_each(6)
        assert labels == [3, 3, 4, 4, 3, 4]
        assert {type(label) for label in labels} == {int}


def test_names_are_in_natural_order() -> None:
    assert list(task_names(["w10", "w2", "w10", 3, (1, 2)]).items()) == [
        (3, "3"), ((1, 2), "(1, 2)"), ("w2", "w2"), ("w10", "w10"),
    ]  # fmt: skip


@pytest.mark.parametrize("label", [None, float("nan"), pd.NaT, pd.NA, "", "a\nb", "a" * 121])
def test_labels_that_cannot_name_a_task(label: Any) -> None:
    with pytest.raises(DataError, match="tasks must"):
        task_names(["a", label])


def test_labels_of_the_same_text() -> None:
    assert task_names(["nan"]) == {"nan": "nan"}
    with pytest.raises(DataError, match="tasks must differ in their text"):
        task_names([1, "1"])


def test_a_column_says_the_task_and_is_no_feature() -> None:
    rows = TaskRows.gather(FRAME, "site")
    assert list(rows.X.columns) == ["u"]
    assert rows.labels == ["a", "b"]
    later = TaskRows.gather(FRAME, None, rows.column)
    assert later.labels == ["a", "b"]
    said = TaskRows.gather(FRAME, ["b", "b"], rows.column)
    assert said.labels == ["b", "b"]
    assert list(said.X.columns) == ["u"]
    with pytest.raises(UsageError, match="tasks must be labels, or the name of a column of X, got 'school'"):
        TaskRows.gather(FRAME, "school")
    with pytest.raises(UsageError, match="name of a column"):
        TaskRows.gather(X, "site")


def test_lists_come_back_as_lists() -> None:
    rows = TaskRows.gather([X[:1], X[1:]], None)
    np.testing.assert_array_equal(rows.X, X)
    assert rows.labels == [0, 1, 1, 1, 1, 1]
    assert [part.tolist() for part in rows.like_given(np.arange(6))] == [[0], [1, 2, 3, 4, 5]]
    assert rows.flat([[7], [8, 9, 10, 11, 12]], "y").tolist() == [7, 8, 9, 10, 11, 12]
    frames = TaskRows.gather([FRAME, FRAME], ["p", "q"])
    assert list(frames.X.columns) == ["u", "site"]
    assert frames.labels == ["p", "p", "q", "q"]


def test_lists_of_rows_are_one_array() -> None:
    assert not is_by_task(X.tolist())
    assert not is_by_task([])
    assert TaskRows.gather(X.tolist(), None).lengths is None


def test_what_does_not_fit_together() -> None:
    with pytest.raises(DataError, match="one label for each of 2 arrays"):
        TaskRows.gather([X, X], ["a"])
    with pytest.raises(DataError, match="as many features for all tasks"):
        TaskRows.gather([X, X[:, :1]], None)
    with pytest.raises(DataError, match="the same columns for all tasks"):
        TaskRows.gather([FRAME, FRAME[["u"]]], None)
    with pytest.raises(DataError, match=r"y must be a list of arrays of \(1, 5\)"):
        TaskRows.gather([X[:1], X[1:]], None).flat([[1], [2]], "y")
    with pytest.raises(DataError, match="hashable"):
        TaskRows.gather(X, [[1], [2]])


def test_labels_have_the_form_that_they_have_in_tables() -> None:
    labels = TaskRows.gather(np.ones((3, 1)), ["u\u0308 ", "\u00fc", " \u00fc"]).of_each(3)
    assert labels == ["\u00fc"] * 3
