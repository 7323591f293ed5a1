from __future__ import annotations

from itertools import combinations

import numpy as np

from asyncdmtl.field import real
from asyncdmtl.plan.linear.conditioning import _measured, well_conditioned

RNG = np.random.default_rng(3)
OUTSIDES = [np.array(rows) for rows in ([0, 1, 2, 3], [2, 3, 4, 5], [0, 1, 4, 5])]
RESPONDERS = [np.array(rows) for rows in combinations(range(8), 6)]


def worst(S: np.ndarray, Lambda: np.ndarray) -> float:
    systems = [np.vstack([S[rows], Lambda]) for rows in OUTSIDES] + [S[rows] for rows in RESPONDERS]
    return max(map(real.condition_number, systems))


def test_systems_are_better_conditioned_and_the_support_stays() -> None:
    S = RNG.standard_normal((8, 6))
    S[0, 3] = S[5, 1] = 0.0
    Lambda = RNG.standard_normal((2, 6))
    before = S.copy()
    better = well_conditioned(S, Lambda, OUTSIDES, RESPONDERS)
    assert worst(better, Lambda) < worst(S, Lambda) / 3
    assert better[0, 3] == better[5, 1] == 0.0
    np.testing.assert_allclose(np.linalg.norm(better, axis=0), np.linalg.norm(S, axis=0))
    np.testing.assert_array_equal(S, before)


def test_the_gradient_is_that_of_the_value() -> None:
    S, Lambda = RNG.standard_normal((8, 6)), RNG.standard_normal((2, 6))
    value, gradient = _measured(S, Lambda, OUTSIDES, RESPONDERS)
    direction = RNG.standard_normal(S.shape)
    moved, _ = _measured(S + 1e-7 * direction, Lambda, OUTSIDES, RESPONDERS)
    np.testing.assert_allclose((moved - value) / 1e-7, np.sum(gradient * direction), rtol=1e-3)


def test_systems_that_are_too_large_stay_as_they_are() -> None:
    S = np.ones((4, 700))
    assert well_conditioned(S, S[:1], [np.arange(2)], []) is S
