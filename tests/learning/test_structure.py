from __future__ import annotations

import re

import numpy as np
import pytest

from asyncdmtl.learning.structure import cluster_order, feature_norms, low_rank_part, similarity, spectrum

RNG = np.random.default_rng(0)
BASIS = RNG.standard_normal((2, 30))
LOW_RANK = RNG.standard_normal((12, 2)) @ BASIS


def test_models_of_rank_two() -> None:
    found = spectrum(LOW_RANK)
    assert found.count == 2
    assert found.values == pytest.approx(np.linalg.svd(LOW_RANK, compute_uv=False), abs=1e-9)
    assert spectrum(np.zeros((3, 4))).count == 0


def test_a_few_entries_besides_a_subspace() -> None:
    W = LOW_RANK.copy()
    W[3, 7] += 20.0
    W[9, 1] -= 20.0
    assert spectrum(W).count == 4
    found = low_rank_part(W)
    assert found.count <= 3
    share = re.fullmatch(r"and (.*)% of the entries by themselves", found.note)
    assert share is not None
    assert 0.6 <= float(share[1]) < 5.0


def test_features_that_no_task_uses() -> None:
    W = LOW_RANK.copy()
    W[:, 4] = 0.0
    norms = feature_norms(W)
    assert norms.shape == (30,)
    assert norms[4] == 0.0
    assert norms[0] == pytest.approx(np.sqrt((W[:, 0] ** 2).sum()))


def test_cosines() -> None:
    W = np.array([[1.0, 0.0], [3.0, 3.0], [0.0, 0.0], [-2.0, 0.0]])
    half = np.sqrt(0.5)
    expected = [[1, half, 0, -1], [half, 1, 0, -half], [0, 0, 1, 0], [-1, -half, 0, 1]]
    assert similarity(W) == pytest.approx(np.array(expected))


def test_similar_tasks_stand_together() -> None:
    kinds = np.array([0, 1, 2, 1, 0, 2, 2, 0, 1, 0])
    centres = np.eye(3, 6)
    cosines = similarity(centres[kinds] + 0.05 * RNG.standard_normal((10, 6)))
    order = cluster_order(cosines)
    assert sorted(order) == list(range(10))
    ordered = kinds[order]
    assert np.count_nonzero(ordered[1:] != ordered[:-1]) == 2


@pytest.mark.parametrize("tasks", [1, 2])
def test_nothing_to_order(tasks: int) -> None:
    assert cluster_order(np.ones((tasks, tasks))).tolist() == list(range(tasks))
