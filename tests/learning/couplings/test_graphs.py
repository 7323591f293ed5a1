from __future__ import annotations

import math

import numpy as np
import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.graphs import (
    ChainLaplacian,
    Edge,
    GraphLaplacian,
    edge_rows,
    laplacian_spectrum,
    smooth_along_chain,
)
from asyncdmtl.learning.couplings.registry import make_coupling


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
    # There is one eigenvalue of 0 for each connected part.
    assert (values < 1e-12).tolist() == [True, True, False, False, False]
    assert (values >= 0.0).all()


@pytest.mark.parametrize("T", [1, 2, 7])
def test_a_chain_is_smoothed_as_by_its_dense_laplacian(T: int) -> None:
    W = np.random.default_rng(1).standard_normal((T, 3))
    links = np.diff(np.eye(T), axis=0)
    expected = np.linalg.solve(np.eye(T) + 1.7 * links.T @ links, W)
    assert smooth_along_chain(W, 1.7) == pytest.approx(expected)
    assert smooth_along_chain(W, 0.0) == pytest.approx(W)


def test_penalties_weigh_the_edges() -> None:
    W = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    assert ChainLaplacian(2.0).penalty(W) == pytest.approx(0.5 * 2.0 * (25 + 1))
    # |w_2 − w_0|² = 34, weighed by 3, and |w_1 − w_0|² = 25, by 1/2.
    graph = GraphLaplacian(2.0, 3, ((0, 1, 0.5), (0, 2, 3.0)))
    assert graph.penalty(W) == pytest.approx(0.5 * 2.0 * (12.5 + 102))


def test_prox_solves_the_system_of_its_laplacian() -> None:
    W = np.random.default_rng(2).standard_normal((4, 3))
    edges = ((0, 1, 0.5), (0, 3, 3.0), (1, 2, 1.0))
    L = np.zeros((4, 4))
    for s, t, a in edges:
        one = np.eye(4)[s] - np.eye(4)[t]
        L += a * np.outer(one, one)
    U = GraphLaplacian(2.0, 4, edges).prox(W, 0.3)
    assert (np.eye(4) + 0.6 * L) @ U == pytest.approx(W)


def test_critical_strength_follows_the_weakest_link() -> None:
    Z = np.random.default_rng(3).standard_normal((3, 2))
    # Two tasks joined with weight a have the eigenvalue 2a; the third task is isolated.
    assert GraphLaplacian(1.0, 3, ((0, 2, 0.25),)).critical_strength(Z, 2.0) == pytest.approx(20.0 / 0.5)
    # A chain of three has the eigenvalues 0, 1 and 3.
    assert ChainLaplacian(1.0).critical_strength(Z, 2.0) == pytest.approx(20.0)
    assert ChainLaplacian(1.0).critical_strength(0.0 * Z, 2.0) == 0.0


def test_a_chain_is_a_graph_of_its_links() -> None:
    rng = np.random.default_rng(8)
    W, tasks = rng.standard_normal((6, 4)), list("abcdef")
    links: list[Edge] = [(one, other, 1.0) for one, other in zip(tasks[1:], tasks, strict=False)]
    chain, graph = make_coupling("chain", 3.0), make_coupling("graph", 3.0, tasks, links)
    assert graph.penalty(W) == pytest.approx(chain.penalty(W))
    assert graph.prox(W, 0.4) == pytest.approx(chain.prox(W, 0.4))
    assert graph.critical_strength(W, 2.0) == pytest.approx(chain.critical_strength(W, 2.0))
    assert chain.critical_strength(W[:1], 2.0) == 0.0


def test_edges_belong_to_names_and_not_to_positions() -> None:
    W = np.random.default_rng(9).standard_normal((3, 4))
    coupling = make_coupling("graph", 1e9, ["a", "b", "c"], [("c", "a", 2.0)])
    U = coupling.prox(W, 1.0)
    assert U[[0, 2]] == pytest.approx(np.tile((W[0] + W[2]) / 2, (2, 1)), abs=1e-6)
    assert U[1] == pytest.approx(W[1], abs=1e-12)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "edges must be given for the coupling graph"),
        ([("a", "x", 1.0)], r"edges must be between known tasks; unknown, got \['x'\]"),
        ([("a", "a", 1.0)], "edges must be between two different tasks"),
        ([("a", "b", 0.0)], "edges must have finite weights above 0"),
        ([("a", "b", -1.0)], "edges must have finite weights above 0"),
        ([("a", "b", math.nan)], "edges must have finite weights above 0"),
        ([("a", "b", math.inf)], "edges must have finite weights above 0"),
        ([("a", "b", 1.0), ("b", "a", 2.0)], "edges must name each pair of tasks once"),
        ([("a", "b", 1e308), ("b", "c", 1e308)], "edges must have weights with a finite sum"),
    ],
)
def test_edges_that_make_no_sense_are_refused(edges: list[Edge], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_coupling("graph", 1.0, ["a", "b", "c"], edges)
