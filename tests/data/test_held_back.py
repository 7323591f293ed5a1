from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.data.held_back import held_rows, hold_back
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.learning.tasks import Partition


def partition(rows: int, name: str = "p", classes: bool = False) -> Partition:
    y = np.arange(rows) < rows // 4 if classes else np.arange(rows)
    return Partition(
        name, "t", np.arange(2.0 * rows).reshape(rows, 2), y.astype(float), np.arange(1.0, rows + 1)
    )


def test_rows_are_kept_once_and_in_order() -> None:
    whole = partition(40)
    train, test = hold_back(whole, 0.25, 7)
    assert test is not None
    both = sorted([*train.targets, *test.targets])
    assert both == list(whole.y)
    for part in (train, test):
        assert list(part.targets) == sorted(part.targets)
        assert isinstance(part, Partition)
        assert part.weights is not None
        np.testing.assert_array_equal(part.weights, part.y + 1)
        assert (part.id, part.task) == ("p", "t")


def test_all_holders_keep_the_same_rows_of_a_partition_and_a_seed() -> None:
    assert held_rows(partition(30), 0.3, 1).tolist() == held_rows(partition(30), 0.3, 1).tolist()
    assert held_rows(partition(30), 0.3, 1).tolist() != held_rows(partition(30), 0.3, 2).tolist()
    assert held_rows(partition(30), 0.3, 1).tolist() != held_rows(partition(30, "q"), 0.3, 1).tolist()
    assert held_rows(partition(12), 0.4, 0).tolist() == [2, 6, 7, 10]


@pytest.mark.parametrize("rows", [1, 2, 3, 400])
def test_some_row_is_left_to_train_on(rows: int) -> None:
    train, _ = hold_back(partition(rows), 0.999, 0)
    assert train.rows >= 1


def test_nothing_is_kept_without_a_share() -> None:
    whole = partition(9)
    assert hold_back(whole, 0.0, 0) == (whole, None)


def test_many_small_partitions_keep_their_share_together() -> None:
    kept = sum(len(held_rows(partition(3, f"p{n}"), 0.2, 0)) for n in range(400))
    assert kept == pytest.approx(0.2 * 1200, rel=0.1)


def test_both_classes_keep_their_share() -> None:
    held = held_rows(partition(400, classes=True), 0.2, 0)
    assert np.bincount(held >= 100).tolist() == [20, 60]


def test_rows_of_files_keep_their_columns() -> None:
    columns = {"age": np.arange(10.0), "ward": np.array(["A", "B"] * 5, dtype=object)}
    raw = RawPartition("f/t", "t", columns, np.arange(10.0) + 5)
    train, test = hold_back(raw, 0.3, 0)
    assert isinstance(train, RawPartition)
    assert isinstance(test, RawPartition)
    for part in (train, test):
        np.testing.assert_array_equal(part.columns["age"], part.target - 5)
    assert train.rows + test.rows == 10
