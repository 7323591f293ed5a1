from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.data import coefficients
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.learning.tasks import TaskModels

COLUMNS = (NumberColumn("age", 40.0, 30.0, 10.0), CategoryColumn("ward", ("A", "B", "C"), False))
MODELS = TaskModels(
    ("s", "t"), np.array([[1.0, 10.0, 20.0, 30.0], [-1.0, 0.0, 0.5, 5.0]]), np.ones(2), "squared"
)


def test_coefficients_are_for_columns_as_they_stand_in_the_data() -> None:
    encoding = Encoding(COLUMNS, {}, "ill", None, 7.0)
    coef, intercept = coefficients.in_original_units(MODELS, encoding)
    assert coef.tolist() == [[0.1, 10.0, 20.0, 30.0], [-0.1, 0.0, 0.5, 5.0]]
    assert intercept.tolist() == [1.0 + 7.0 - 3.0, 1.0 + 7.0 + 3.0]


def test_a_table_has_a_column_for_each_model() -> None:
    pytest.importorskip("pandas")
    table = coefficients.coefficient_table(
        ["s", "t"], ["age"], np.array([[1.0], [2.0]]), np.array([3.0, 4.0])
    )
    assert table.index.tolist() == [coefficients.INTERCEPT, "age"]
    assert table.loc["age", "t"] == 2.0
    assert table.loc["(intercept)"].tolist() == [3.0, 4.0]
    of_classes = coefficients.coefficient_table([("s", 0), ("s", 1)], [], np.ones((2, 0)), np.ones(2))
    assert of_classes["s"].columns.tolist() == [0, 1]
