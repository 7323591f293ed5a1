from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.learning.couplings.graphs import edge_rows, laplacian_spectrum, smooth_along_chain


def test_edges_are_put_in_the_order_of_the_tasks() -> None:
    edges = edge_rows(["b", "a", "c"], [("c", "a", 2.0), ("a", "b", 1.0)])
    assert edges == ((0, 1, 1.0), (1, 2, 2.0))


def test_the_spectrum_is_that_of_the_sum_over_edges() -> None:
    W = np.random.default_rng(0).standard_normal((5, 3))
    edges = ((0, 1, 2.0), (0, 4, 0.5), (2, 3, 1.0))
    values, Q = laplacian_spectrum(5, edges)
    assert np.trace(W.T @ (Q * values) @ Q.T @ W) == pytest.approx(
        sum(a * ((W[s] - W[t]) ** 2).sum() for s, t, a in edges)
    )
    # One zero for each connected part.
    assert (values < 1e-12).tolist() == [True, True, False, False, False]
    assert (values >= 0.0).all()


@pytest.mark.parametrize("T", [1, 2, 7])
def test_a_chain_is_smoothed_as_by_its_dense_laplacian(T: int) -> None:
    W = np.random.default_rng(1).standard_normal((T, 3))
    links = np.diff(np.eye(T), axis=0)
    expected = np.linalg.solve(np.eye(T) + 1.7 * links.T @ links, W)
    assert smooth_along_chain(W, 1.7) == pytest.approx(expected)
    assert smooth_along_chain(W, 0.0) == pytest.approx(W)
