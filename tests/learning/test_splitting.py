import numpy as np
import pytest
from support.quadratics import least, make_quadratics

from asyncdmtl.learning.penalties import Columns, Nuclear
from asyncdmtl.learning.quadratic import Accuracy
from asyncdmtl.learning.splitting import duality_gap, residual_gap, split


@pytest.mark.parametrize("rho", [0.05, 0.5, 5.0])
def test_any_weight_of_the_splitting_leads_to_the_optimum(rho: float) -> None:
    quadratics = make_quadratics()
    found = split(quadratics, Nuclear(np.array([0.2])), np.array([rho]), Accuracy(1e-10))
    np.testing.assert_allclose(found.value[0, 0], least("nuclear", quadratics, 0.2), rtol=1e-7)
    assert found.gap[0, 0] <= 1e-10 * found.value[0, 0]


def test_the_gap_bounds_how_far_the_optimum_is() -> None:
    quadratics = make_quadratics()
    optimum = least("l21", quadratics, 0.2)
    rng = np.random.default_rng(0)
    for scale in (1.0, 0.1, 1e-2, 1e-4):
        best = split(quadratics, Columns(np.array([0.2])), np.array([0.5]), Accuracy(1e-12)).W[:, :, None]
        H = best + scale * rng.normal(size=best.shape)
        W, penalty = H[:, :, 0], Columns(np.array([0.2]))
        value = quadratics.value(W) + penalty.value(H)
        s, conjugate = penalty.dual(quadratics.b[:, None] - quadratics.products(W))
        gap = duality_gap(quadratics, value, W, s, conjugate)
        assert value[0, 0] - optimum <= gap[0, 0] + 1e-7
        assert gap[0, 0] < 30.0 * scale


def test_columns_that_no_task_needs_are_exactly_zero() -> None:
    quadratics = make_quadratics()
    W = split(quadratics, Columns(np.array([3.0])), np.array([0.5]), Accuracy(1e-10)).W
    assert (np.abs(W).max(axis=(0, 1, 2)) == 0.0).any()


def test_the_residual_counts_with_the_models() -> None:
    e, W = np.full((1, 1, 2, 2), 3.0), np.full((1, 1, 2, 2), 0.5)
    np.testing.assert_allclose(residual_gap(e, W), [[6.0]])
