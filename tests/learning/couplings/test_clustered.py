from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncdmtl.learning.couplings.clustered import Clustered


@given(gap=st.floats(0.0, 10.0), step=st.floats(0.1, 2.0), strength=st.floats(0.0, 5.0))
@settings(deadline=None, max_examples=40)
def test_two_models_meet_or_come_nearer_by_a_known_length(gap: float, step: float, strength: float) -> None:
    # With T = 2 the prox is that of (λ/2)·|u − v|: each model moves by step·λ/2, at most to the middle.
    W = np.array([[1.0], [1.0 + gap]])
    U = Clustered(strength).prox(W, step)
    moved = min(step * strength / 2.0, gap / 2.0)
    assert pytest.approx(np.array([[1.0 + moved], [1.0 + gap - moved]]), abs=1e-8) == U


def test_the_mean_of_the_models_stays() -> None:
    W = np.random.default_rng(1).standard_normal((5, 3))
    assert Clustered(0.7).prox(W, 0.5).mean(axis=0) == pytest.approx(W.mean(axis=0))


def test_equal_models_stay_equal_from_the_critical_strength_on() -> None:
    Z = np.random.default_rng(2).standard_normal((4, 3))
    critical = Clustered(0.0).critical_strength(Z, 1.0)
    assert critical == pytest.approx(max(float(np.linalg.norm(y - z)) for y, z in combinations(Z, 2)))
    assert np.ptp(Clustered(1.0001 * critical).prox(-Z, 1.0), axis=0).max() < 1e-8
    assert Clustered(1.0).critical_strength(Z[:1], 1.0) == 0.0


def test_clustered_penalty_is_the_sum_over_pairs() -> None:
    W = np.random.default_rng(3).standard_normal((4, 6))
    pairs = sum(float(np.linalg.norm(v - w)) for v, w in combinations(W, 2))
    assert Clustered(0.7).penalty(W) == pytest.approx(0.7 * pairs / 4)
    assert Clustered(0.7).penalty(W[:1]) == 0.0


def test_clusters_of_tasks_become_equal_and_stay_apart() -> None:
    rng = np.random.default_rng(7)
    centres, of = 3.0 * rng.standard_normal((2, 5)), np.array([0, 1, 0, 1, 1, 0])
    U = Clustered(2.0).prox(centres[of] + 0.1 * rng.standard_normal((6, 5)), 1.0)
    for c in (0, 1):
        assert np.ptp(U[of == c], axis=0).max() < 1e-9
    assert np.linalg.norm(U[0] - U[1]) > 1.0
