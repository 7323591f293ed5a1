import numpy as np
import pytest
from support.quadratics import make_quadratics

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.quadratic import Quadratics, inverse
from asyncdmtl.learning.second_derivatives import apply


def test_value_is_that_of_the_formula() -> None:
    quadratics = make_quadratics(K=2)
    W = np.random.default_rng(3).normal(size=(2, 5, 4, 3))
    A, b, c = quadratics.A, quadratics.b, quadratics.c
    expected = 0.5 * np.einsum("klti,ktij,kltj->kl", W, A, W) - np.einsum("klti,kti->kl", W, b)
    np.testing.assert_allclose(quadratics.value(W), expected + 0.5 * c.sum(axis=1)[:, None], rtol=1e-12)


def test_inverse_and_apply_undo_each_other() -> None:
    quadratics = make_quadratics(K=2)
    W = np.random.default_rng(3).normal(size=(2, 5, 4, 3))
    M = inverse(quadratics.A, 0.25)
    np.testing.assert_allclose(apply(M, quadratics.products(W) + 0.25 * W), W, rtol=1e-10)


def test_a_ridge_may_differ_by_task() -> None:
    quadratics = make_quadratics(K=2)
    ridges = np.random.default_rng(0).uniform(0.1, 1.0, size=(2, 4))
    M = inverse(quadratics.A, ridges)
    np.testing.assert_allclose(
        M[1, 2], np.linalg.inv(quadratics.A[1, 2] + ridges[1, 2] * np.eye(3)), rtol=1e-9
    )


def test_scale_is_the_mean_diagonal() -> None:
    quadratics = make_quadratics()
    np.testing.assert_allclose(quadratics.scale, np.trace(quadratics.A, axis1=2, axis2=3).mean() / 3)
    assert Quadratics(0.0 * quadratics.A, quadratics.b, quadratics.c).scale == 1.0


@pytest.mark.parametrize("part", ["A", "b", "c"])
def test_shapes_and_numbers_must_make_sense(part: str) -> None:
    quadratics = make_quadratics()
    parts = {"A": quadratics.A, "b": quadratics.b, "c": quadratics.c}
    with pytest.raises(UsageError, match="must be"):
        Quadratics(**{**parts, part: parts[part][..., None]})
    with pytest.raises(UsageError, match="finite"):
        Quadratics(**{**parts, part: parts[part] * np.nan})
