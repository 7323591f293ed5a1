import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.learning import coupled, interior
from asyncdmtl.learning.couplings.registry import make_coupling
from asyncdmtl.learning.quadratic import Accuracy, Quadratics

COUPLINGS = ("nuclear", "covariance", "l21")

T, C = 4, 5


def problem(sizes: Floats, tasks: int = T) -> Quadratics:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1, tasks, 12, C)) @ (np.eye(C) + 0.3 * rng.normal(size=(C, C))) * sizes
    models = rng.normal(size=(tasks, 2)) @ rng.normal(size=(2, C)) / sizes
    y = np.einsum("ktnc,tc->ktn", X, models) + 0.3 * rng.normal(size=(1, tasks, 12))
    A = np.einsum("ktni,ktnj->ktij", X, X) / 12
    b, c = np.einsum("ktnc,ktn->ktc", X, y) / 12, np.einsum("ktn,ktn->kt", y, y) / 12
    return Quadratics(0.5 * (A + np.swapaxes(A, 2, 3)), b, c)


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("tasks", [2, 7])
def test_finds_what_splitting_finds_where_columns_are_alike(name: str, tasks: int) -> None:
    coupling, quadratics = make_coupling(name, 1.0), problem(np.ones(C), tasks)
    strengths = np.array([[0.1]])
    assert not interior.suits(coupling, quadratics)
    found = interior.solve(coupling, quadratics, strengths, Accuracy(1e-9))
    expected = coupled.solve(coupling, quadratics, strengths, tolerance=1e-10)
    np.testing.assert_allclose(found.value, expected.value, rtol=2e-9)
    assert (found.gap <= 1e-9 * found.value).all()
    np.testing.assert_allclose(found.W, expected.W, atol=1e-3)


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("strength", [1e-4, 1.0])
def test_columns_of_very_different_sizes_are_solved_to_a_small_gap(name: str, strength: float) -> None:
    sizes = 10.0 ** np.linspace(4.0, -4.0, C)
    coupling, quadratics = make_coupling(name, strength), problem(sizes)
    assert interior.suits(coupling, quadratics)
    solution = coupled.solve(coupling, quadratics, [strength], tolerance=1e-8)
    W, A, b, c = solution.W[0, 0], quadratics.A[0], quadratics.b[0], quadratics.c[0]
    least = 0.5 * np.einsum("ti,tij,tj", W, A, W) - (b * W).sum() + 0.5 * c.sum()
    np.testing.assert_allclose(solution.value[0, 0], least + coupling.penalty(W), rtol=1e-9)
    # A lower bound by Fenchel's duality, at the gradient.
    Z = b - np.einsum("tij,tj->ti", A, W)
    size = np.linalg.norm(Z, axis=0).max() if name == "l21" else np.linalg.norm(Z, 2)
    conjugate = size**2 / (2.0 * strength) if name == "covariance" else 0.0
    if name != "covariance":
        Z *= min(1.0, strength / size)
    fits = b - Z
    data = 0.5 * np.einsum("ti,ti", fits, np.linalg.solve(A, fits[..., None])[..., 0])
    bound = 0.5 * c.sum() - data - conjugate
    assert solution.value[0, 0] - bound <= 1e-6 * bound


def test_models_of_0_are_found_at_once() -> None:
    sizes = 10.0 ** np.linspace(4.0, -4.0, C)
    quadratics = problem(sizes)
    critical = float(np.linalg.norm(quadratics.b[0], 2))
    solution = coupled.solve(make_coupling("nuclear", 1.0), quadratics, [1.001 * critical])
    assert not solution.W.any()
    assert solution.gap[0, 0] == 0.0
    nothing = Quadratics(quadratics.A, 0.0 * quadratics.b, 0.0 * quadratics.c)
    assert not coupled.solve(make_coupling("l21", 1.0), nothing, [1.0]).W.any()


def test_a_column_without_data_gets_no_coefficient() -> None:
    sizes = 10.0 ** np.linspace(4.0, -4.0, C)
    sizes[2] = 1e-300
    for name in COUPLINGS:
        solution = coupled.solve(make_coupling(name, 1.0), problem(sizes), [1e-3], tolerance=1e-7)
        assert solution.gap[0, 0] <= 1e-6 * solution.value[0, 0]
        assert np.abs(solution.W[..., 2]).max() < 1e-3
