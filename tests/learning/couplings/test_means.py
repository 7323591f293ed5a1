from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.learning.couplings.means import MeanRegularised, PlainMean

# The mean of the rows is (2, 5).
W = np.array([[1.0, 4.0], [2.0, 4.0], [3.0, 7.0]])


def test_plain_mean_gives_every_task_the_mean() -> None:
    coupling = PlainMean(123.0)
    assert (coupling.prox(W, 0.1) == [[2.0, 5.0]] * 3).all()
    assert coupling.penalty(coupling.prox(W, 0.1)) == 0.0
    assert coupling.critical_strength(W, 1.0) == 0.0


def test_a_step_to_the_plain_mean_needs_one_combination_of_the_aggregates() -> None:
    assert PlainMean(0.0).mixing(4).tolist() == [[0.25] * 4]


def test_penalty_is_half_the_squared_distance_from_the_mean() -> None:
    # Distances from (2, 5): (−1, −1), (0, −1), (1, 2), with squares 2 + 1 + 5.
    assert MeanRegularised(0.5).penalty(W) == pytest.approx(0.5 * 0.5 * 8)
    assert MeanRegularised(0.5).penalty(W[:1]) == 0.0


def test_models_are_drawn_towards_the_mean_by_a_known_share() -> None:
    # 1 / (1 + 0.5·6) = 1/4 of the distance is left.
    expected = np.array([2.0, 5.0]) + np.array([[-1.0, -1.0], [0.0, -1.0], [1.0, 2.0]]) / 4
    place = W.copy()
    assert MeanRegularised(6.0).prox(W, 0.5) == pytest.approx(expected)
    assert MeanRegularised(6.0).prox(place, 0.5, place) is place
    assert place == pytest.approx(expected)


def test_columns_may_be_taken_one_at_a_time() -> None:
    coupling = MeanRegularised(0.3)
    assert coupling.columnwise
    assert PlainMean(0.3).columnwise
    whole = coupling.prox(W, 0.7)
    for column in range(2):
        part = np.ascontiguousarray(W[:, [column]])
        assert (coupling.prox(part, 0.7) == whole[:, [column]]).all()


def test_at_the_critical_strength_a_step_leaves_a_tenth_of_the_differences() -> None:
    smoothness = 4.0
    strength = MeanRegularised(0.0).critical_strength(W, smoothness)
    U = MeanRegularised(strength).prox(W, 1.0 / smoothness)
    assert U - U.mean(axis=0) == pytest.approx((W - W.mean(axis=0)) / 11.0)
    assert MeanRegularised(1.0).critical_strength(0.0 * W, smoothness) == 0.0
