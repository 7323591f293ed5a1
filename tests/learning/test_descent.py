import numpy as np
from support.quadratics import coupling_of, make_quadratics

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.coupled import solve
from asyncdmtl.learning.descent import Descent
from asyncdmtl.learning.quadratic import Quadratics
from asyncdmtl.learning.second_derivatives import Whole

STRENGTH = 0.1


def told(quadratics: Quadratics, W: Floats) -> tuple[Floats, Floats, Whole]:
    """Losses, gradients and curvatures of each data set of a quadratic at its models (K, T, C)."""
    AW = np.einsum("ktij,ktj->kti", quadratics.A, W)
    losses = 0.5 * (W * AW).sum(axis=2) - (W * quadratics.b).sum(axis=2) + 0.5 * quadratics.c
    return losses, AW - quadratics.b, Whole(quadratics.A)


def made(K: int = 2) -> tuple[Quadratics, Descent]:
    quadratics = make_quadratics(K=K)
    K, T, C = quadratics.b.shape
    return quadratics, Descent(coupling_of("nuclear", STRENGTH, 4), (K, T, C), C, np.full((K, T), np.nan))


def test_of_a_quadratic_one_step_is_nearly_all() -> None:
    quadratics, descent = made()
    W: Floats = np.zeros(quadratics.b.shape)
    for _ in range(5):
        W, _ = descent.step(W, *told(quadratics, W))
    least = solve(coupling_of("nuclear", 1.0, 4), quadratics, [STRENGTH]).value[:, 0]
    np.testing.assert_allclose(descent.objective, least, rtol=1e-8)
    assert descent.near(1e-6).all()


def test_a_worse_place_is_left_again() -> None:
    quadratics, descent = made(1)
    start: Floats = np.zeros(quadratics.b.shape)
    descent.step(start, *told(quadratics, start))
    before = descent.objective.copy()
    back, better = descent.step(start + 100.0, *told(quadratics, start + 100.0))
    assert not better[0]
    np.testing.assert_array_equal(descent.objective, before)
    assert np.abs(back).max() < 91.0


def test_what_promises_little_rests() -> None:
    quadratics, descent = made()
    W: Floats = np.zeros(quadratics.b.shape)
    for _ in range(6):
        before = W
        W, better = descent.step(W, *told(quadratics, W), np.array([1e-2, 0.0]))
    assert not better[0]
    np.testing.assert_array_equal(W[0], before[0])


def test_second_derivatives_are_not_used_after_the_last_step() -> None:
    quadratics, descent = made()
    W: Floats = np.zeros(quadratics.b.shape)
    rest = np.array([1e-2, 0.0])
    while descent.wants(rest).all():
        W, _ = descent.step(W, *told(quadratics, W), rest)
    assert descent.wants(rest).tolist() == [False, True]
    assert not descent.rests(W, rest).any()
    promised = descent.promised[0]
    losses, gradients, H = told(quadratics, W)
    H.A[0] = 0.0
    following, better = descent.step(W, losses, gradients, H, rest)
    assert better[0]
    np.testing.assert_array_equal(following[0], W[0])
    assert descent.promised[0] == promised
    assert descent.rests(following, rest)[0]


def test_state_is_all_there_is() -> None:
    quadratics, descent = made()
    W: Floats = np.zeros(quadratics.b.shape)
    W, _ = descent.step(W, *told(quadratics, W))
    _, other = made()
    other.restore(descent.state())
    here = told(quadratics, W)
    for one, two in zip(descent.step(W, *here), other.step(W, *here), strict=True):
        np.testing.assert_array_equal(one, two)
