from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from asyncdmtl.arrays import Floats
from asyncdmtl.data.class_weights import balanced, balanced_factors
from asyncdmtl.data.columns import as_column
from asyncdmtl.data.raw_partition import RawPartition


def part(name: str, task: str, target: list[Any], weights: list[float] | None = None) -> RawPartition:
    own = None if weights is None else np.array(weights)
    return RawPartition(name, task, {"x": np.arange(float(len(target)))}, as_column(target, "y"), own, "y")


def weights_of(partition: RawPartition) -> Floats:
    assert partition.weights is not None
    return partition.weights


def test_factors_are_those_of_scikit_learn() -> None:
    codes = np.random.default_rng(0).choice(3, 50, p=[0.7, 0.2, 0.1])
    np.testing.assert_allclose(balanced_factors(codes, None), compute_sample_weight("balanced", codes))


def test_classes_have_equal_weight_and_the_sum_stays() -> None:
    codes, weights = np.array([0, 2, 0, 0, 2]), np.array([1.0, 2.0, 0.5, 3.0, 0.25])
    new = weights * balanced_factors(codes, weights)
    assert np.bincount(codes, new).tolist() == pytest.approx([3.375, 0.0, 3.375])
    assert new[2] / new[0] == 0.5


def test_classes_are_counted_over_all_partitions_of_a_task_and_of_no_other() -> None:
    before = (
        part("p0", "a", ["no", "no", "yes"]),
        part("p1", "b", ["yes", "yes"]),
        part("p2", "a", ["no", "no", "no"]),
    )
    first, other, second = balanced(before)
    assert [weights_of(p).tolist() for p in (first, second)] == [[0.6, 0.6, 3.0], [0.6, 0.6, 0.6]]
    assert weights_of(other).tolist() == [1.0, 1.0]
    assert [p.id for p in (first, other, second)] == ["p0", "p1", "p2"]
    assert before[0].weights is None


def test_spellings_of_a_class_are_one_class() -> None:
    (found,) = balanced([part("p0", "a", ["TRUE", "True", "False", "true"])])
    np.testing.assert_allclose(weights_of(found), [2 / 3, 2 / 3, 2.0, 2 / 3])


def test_weights_of_rows_count() -> None:
    (found,) = balanced([part("p0", "a", [0.0, -0.0, 1.0], [1.0, 2.0, 5.0])])
    np.testing.assert_allclose(weights_of(found), [4 / 3, 8 / 3, 4.0])
