import numpy as np
import pytest
from support.quadratics import make_low_rank

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.second_derivatives import LowRank


def test_both_forms_of_the_same_matrices_do_the_same() -> None:
    low, whole = make_low_rank(K=2)
    K, T, C = low.diagonal.shape
    rng = np.random.default_rng(0)
    W, b, share = rng.normal(size=(K, 3, T, C)), rng.normal(size=(K, T, C)), rng.uniform(size=(K, T))
    same = np.testing.assert_allclose
    same(low.diagonals, whole.diagonals)
    for one, other in zip(low.intercepts, whole.intercepts, strict=True):
        same(one, other)
    same(low.times(W), whole.times(W))
    same(low.solved(b), whole.solved(b), rtol=1e-6)
    same(low.of([1]).times(W[1:]), whole.of([1]).times(W[1:]))
    larger = np.full((K, T, C), 0.5)
    same(low.plus(larger).times(W), whole.plus(larger).times(W))
    same(low.eliminated(share).times(W[..., :-1]), whole.eliminated(share).times(W[..., :-1]))


@pytest.mark.parametrize("r", [0, 1, 5])
def test_an_inverse_undoes_products(r: int) -> None:
    low, _ = make_low_rank(r=r)
    W = np.random.default_rng(2).normal(size=(1, 2, 4, 6))
    np.testing.assert_allclose(low.inverse().times(low.times(W)), W, rtol=1e-9)


def test_matrices_that_are_not_positive_definite_have_no_inverse() -> None:
    low, _ = make_low_rank(r=2)
    assert low.positive().all()
    worse = LowRank(low.diagonal, low.P, np.where(np.arange(4)[:, None, None] == 1, -9.0, 1.0) * low.S)
    assert worse.positive().tolist() == [[True, False, True, True]]
    with pytest.raises(UsageError, match="positive definite"):
        worse.inverse()
