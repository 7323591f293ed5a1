from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdmtl.learning.couplings.group_sparse import L21Norm

# Columns of length 5, 13 and 0.
W = np.array([[3.0, 5.0, 0.0], [4.0, 12.0, 0.0]])


def test_penalty_is_the_sum_of_the_lengths_of_columns() -> None:
    assert L21Norm(0.5).penalty(W) == pytest.approx(0.5 * (5 + 13))


def test_prox_shortens_each_column_by_the_threshold() -> None:
    U = L21Norm(2.0).prox(W, 3.0)
    # The threshold is 6: a column of length 5 vanishes, one of length 13 keeps 7/13 of itself.
    assert pytest.approx(np.array([[0.0, 5.0 * 7 / 13, 0.0], [0.0, 12.0 * 7 / 13, 0.0]])) == U
    assert (U[:, 0] == 0.0).all()


@given(seed=st.integers(0, 99), strength=st.floats(0.0, 4.0), dtype=st.sampled_from(["float32", "float64"]))
def test_prox_of_some_columns_is_those_columns_of_the_prox(seed: int, strength: float, dtype: str) -> None:
    given = np.random.default_rng(seed).standard_normal((3, 6)).astype(dtype)
    coupling = L21Norm(strength)
    assert coupling.columnwise
    whole = coupling.prox(given, 0.5)
    assert whole.dtype == dtype
    assert whole[:, 2:5].tobytes() == coupling.prox(np.ascontiguousarray(given[:, 2:5]), 0.5).tobytes()


def test_prox_may_overwrite_its_argument() -> None:
    coupling, expected = L21Norm(2.0), L21Norm(2.0).prox(W, 1.0)
    place = W.copy()
    assert coupling.prox(place, 1.0, place) is place
    assert (place == expected).all()


def test_without_strength_nothing_changes_and_zero_columns_do_not_become_nan() -> None:
    assert (L21Norm(0.0).prox(W, 1.0) == W).all()
    assert (L21Norm(1e-320).prox(np.zeros((2, 2)), 1.0) == 0.0).all()


def test_models_are_zero_from_the_critical_strength_on() -> None:
    critical = L21Norm(0.0).critical_strength(W, 1.0)
    assert critical == pytest.approx(13.0)
    assert (L21Norm(critical).prox(-W, 1.0) == 0.0).all()
    assert L21Norm(0.99 * critical).prox(-W, 1.0).any()
