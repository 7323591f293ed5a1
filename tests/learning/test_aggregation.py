from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.learning.aggregation import AGGREGATES


@given(n=st.integers(1, 7), d=st.integers(1, 5), seed=st.integers(0, 999))
def test_mean_is_weighted_by_rows(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates, weights = rng.standard_normal((n, d)), rng.integers(1, 50, n).astype(float)
    expected = np.average(updates, axis=0, weights=weights)
    assert AGGREGATES["mean"](updates, weights) == pytest.approx(expected, abs=1e-12)


@given(n=st.integers(3, 9), seed=st.integers(0, 999))
def test_median_withstands_fewer_than_half(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((n, 4))
    right = updates[(n - 1) // 2 :]
    updates[: (n - 1) // 2] = rng.choice([-1e12, 1e12], ((n - 1) // 2, 4))
    z = AGGREGATES["median"](updates, np.ones(n))
    assert ((right.min(axis=0) <= z) & (z <= right.max(axis=0))).all()


@pytest.mark.parametrize("name", AGGREGATES)
def test_one_update_stays_itself_and_arguments_stay_untouched(name: str) -> None:
    updates, weights = np.array([[1.0, -2.0, 3.0]]), np.array([4.0])
    assert AGGREGATES[name](updates, weights).tolist() == [1.0, -2.0, 3.0]
    assert updates.tolist() == [[1.0, -2.0, 3.0]]


def test_median_goes_by_coordinate_and_not_by_weight() -> None:
    updates = np.array([[1.0, 30.0], [2.0, 10.0], [9.0, 20.0]])
    assert AGGREGATES["median"](updates, np.array([100.0, 1.0, 1.0])).tolist() == [2.0, 20.0]
