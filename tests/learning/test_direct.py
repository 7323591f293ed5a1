import numpy as np
import pytest
from support.quadratics import EDGES, make_quadratics

from asyncdmtl.arithmetic.kinds import REPRODUCIBLE
from asyncdmtl.learning import direct
from asyncdmtl.learning.quadratic import Accuracy


def test_tasks_apart_are_least_squares() -> None:
    quadratics = make_quadratics()
    expected = np.linalg.solve(quadratics.A[0], quadratics.b[0][..., None])[..., 0]
    np.testing.assert_allclose(direct.apart(quadratics)[0], expected, rtol=1e-10)


def test_of_many_solutions_the_shortest_is_taken() -> None:
    quadratics = make_quadratics(rows=2)
    expected = np.einsum("tij,tj->ti", np.linalg.pinv(quadratics.A[0], rcond=1e-10), quadratics.b[0])
    np.testing.assert_allclose(direct.apart(quadratics)[0], expected, atol=1e-5)


def test_tasks_together_have_the_model_of_all_rows() -> None:
    quadratics = make_quadratics()
    expected = np.linalg.solve(quadratics.A[0].sum(axis=0), quadratics.b[0].sum(axis=0))
    np.testing.assert_allclose(direct.together(quadratics)[0], np.tile(expected, (4, 1)), rtol=1e-10)


def test_near_the_mean_however_strong() -> None:
    quadratics = make_quadratics()
    W = direct.near_mean(quadratics, np.array([[1e-9, 1e9]]), Accuracy(1e-12))[0]
    np.testing.assert_allclose(W[0], direct.apart(quadratics)[0], atol=1e-6)
    np.testing.assert_allclose(W[1], direct.together(quadratics)[0], atol=1e-6)


@pytest.mark.parametrize("rows", [8, 2])
def test_towards_zero_by_eigenvectors_and_by_factors(rows: int) -> None:
    quadratics, strengths = make_quadratics(K=2, rows=rows), np.array([[2.0, 1e-4], [0.3, 0.02]])
    W = direct.towards_zero(quadratics, strengths, REPRODUCIBLE)
    for k, i in np.ndindex(2, 2):
        expected = np.linalg.solve(quadratics.A[k] + strengths[k, i] * np.eye(3), quadratics.b[k][..., None])
        np.testing.assert_allclose(W[k, i], expected[..., 0], rtol=1e-9)
    assert quadratics.spectra(REPRODUCIBLE)[1] is quadratics.spectra(REPRODUCIBLE)[1]
    for i in range(2):
        alone = direct.towards_zero(quadratics, strengths[:, i : i + 1], REPRODUCIBLE)
        np.testing.assert_allclose(alone[:, 0], W[:, i], rtol=1e-9)


def test_along_edges_solves_the_system_of_the_laplacian() -> None:
    quadratics = make_quadratics(K=2)
    W = direct.along_edges(quadratics, np.array([[0.3, 2.0]] * 2), EDGES, direct.elimination(4, EDGES))
    L = np.zeros((4, 4))
    for s, t, a in EDGES:
        L[[s, t], [s, t]] += a
        L[[s, t], [t, s]] -= a
    for k in range(2):
        for i, strength in enumerate((0.3, 2.0)):
            left = np.einsum("tij,tj->ti", quadratics.A[k], W[k, i]) + strength * L @ W[k, i]
            np.testing.assert_allclose(left, quadratics.b[k], atol=1e-11)


def test_a_chain_is_eliminated_without_fill() -> None:
    order = direct.elimination(50, [(t, t + 1, 1.0) for t in range(49)])
    assert order.blocks == 49
    assert sorted(v for v, _ in order.steps) == list(range(50))


def test_a_complete_graph_fills() -> None:
    edges = [(s, t, 1.0) for s in range(6) for t in range(s + 1, 6)]
    assert direct.elimination(6, edges).blocks == sum(n * (n + 1) // 2 for n in range(6))


def test_strengths_that_share_a_system_reach_the_same_models() -> None:
    quadratics, strengths = make_quadratics(K=2), np.array([[10.0, 3.0, 0.5, 0.01]] * 2)
    exact = direct.near_mean(quadratics, strengths, Accuracy(1e-12))
    shared = direct.near_mean(quadratics, strengths, Accuracy(1e-4))
    np.testing.assert_allclose(shared, exact, atol=1e-3)
    assert not np.array_equal(shared, exact)
