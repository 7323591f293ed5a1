import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.secants import Secants, pairs_kept
from asyncdmtl.learning.second_derivatives import LowRank

T, D = 3, 5


def hessians(rng: np.random.Generator) -> Floats:
    """Positive definite matrices (T, D, D)."""
    A = rng.normal(size=(T, 2 * D, D))
    H: Floats = np.swapaxes(A, 1, 2) @ A / (2 * D)
    return H


def empty(H: Floats) -> Secants:
    bounds: Floats = np.linalg.eigvalsh(H)[:, -1].astype(np.float64)
    return Secants(bounds, np.repeat(bounds[:, None], D, axis=1), D, 1.0)


def metric(secants: Secants) -> Floats:
    """The metrics (T, D, D)."""
    columns = np.eye(D)[None, :, None].repeat(T, axis=2)
    products: Floats = secants.metric().times(columns)[0].transpose(1, 2, 0)
    return products


def test_without_pairs_the_metric_is_the_first_one() -> None:
    H = hessians(np.random.default_rng(0))
    B = metric(empty(H))
    np.testing.assert_allclose(B, np.linalg.eigvalsh(H)[:, -1, None, None] * np.eye(D), rtol=1e-7)


@pytest.mark.parametrize("count", [1, 3, D, 9])
def test_the_metric_of_a_quadratic_loss_is_exact_along_all_steps(count: int) -> None:
    rng = np.random.default_rng(count)
    H = hessians(rng)
    secants = empty(H)
    steps = rng.normal(size=(count, T, D))
    for s in steps:
        secants.add(s, np.einsum("tij,tj->ti", H, s))
    B = metric(secants)
    for s in steps[-D:]:
        np.testing.assert_allclose(
            np.einsum("tij,tj->ti", B, s), np.einsum("tij,tj->ti", H, s), rtol=1e-5, atol=1e-5
        )
    assert (np.linalg.eigvalsh(B) > 0.0).all()


def test_pairs_that_no_convex_loss_could_make_change_nothing() -> None:
    rng = np.random.default_rng(0)
    H = hessians(rng)
    secants = empty(H)
    s = rng.normal(size=(T, D))
    secants.add(s, -s)
    secants.add(s, 1e9 * s)
    np.testing.assert_array_equal(metric(secants), metric(empty(H)))


def test_only_the_tasks_that_moved_learn() -> None:
    rng = np.random.default_rng(0)
    H = hessians(rng)
    secants = empty(H)
    s = rng.normal(size=(T, D))
    s[1] = 0.0
    secants.add(s, np.einsum("tij,tj->ti", H, s))
    changed = (metric(secants) != metric(empty(H))).any(axis=(1, 2))
    assert changed.tolist() == [True, False, True]


def test_a_state_goes_on_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    H = hessians(rng)
    secants, other = empty(H), empty(H)
    for _ in range(3):
        s = rng.normal(size=(T, D))
        secants.add(s, np.einsum("tij,tj->ti", H, s))
    state = secants.state()
    assert state.shape == ((1 + 2 * pairs_kept(T, D, low_rank=False)) * T * D,)
    other.restore(state)
    np.testing.assert_array_equal(metric(other), metric(secants))
    with pytest.raises(UsageError, match="finite"):
        other.restore(np.full_like(state, np.nan))
    with pytest.raises(UsageError, match="positive"):
        other.restore(-state)


def test_columns_of_any_sizes_are_learned_alike() -> None:
    rng = np.random.default_rng(0)
    H = hessians(rng)
    sizes = 10.0 ** np.arange(-4.0, 6.0, 2.0)
    plain, sized = empty(H), empty(H * sizes[:, None] * sizes)
    plain.scale(np.einsum("tii->ti", H))
    sized.scale(np.einsum("tii->ti", H) * sizes**2)
    for _ in range(D):
        s = rng.normal(size=(T, D))
        y = np.einsum("tij,tj->ti", H, s)
        plain.add(s, y)
        sized.add(s / sizes, y * sizes)
    expected = metric(plain) * sizes[:, None] * sizes
    np.testing.assert_allclose(metric(sized), expected, rtol=1e-6)
    np.testing.assert_allclose(expected, H * sizes[:, None] * sizes, rtol=1e-2)


def test_columns_that_are_empty_in_a_task_have_the_scale_of_the_others() -> None:
    H = hessians(np.random.default_rng(0))
    one, other = empty(H), empty(H)
    squares = np.full((T, D), 4.0)
    one.scale(squares)
    squares[0, 1] = 0.0
    other.scale(squares)
    np.testing.assert_array_equal(metric(one), metric(other))


def test_long_vectors_have_fewer_pairs() -> None:
    assert pairs_kept(10, 20, low_rank=False) == 30
    assert pairs_kept(10, 60, low_rank=False) == 90
    assert pairs_kept(10, 60, low_rank=True) == 30
    assert 2 <= pairs_kept(100, 2000, low_rank=True) < 30
    assert pairs_kept(1000, 100_000, low_rank=True) == 2


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_metrics_of_low_rank_are_the_same_matrices(count: int) -> None:
    rng = np.random.default_rng(count)
    H = hessians(rng)
    bounds = np.linalg.eigvalsh(H)[:, -1].astype(np.float64)
    first = np.repeat(bounds[:, None], D, axis=1)
    first[:, -1] = 2.0
    both = [Secants(bounds, first, D - 1, 1.0, low_rank=low_rank) for low_rank in (False, True)]
    for secants in both:
        secants.scale(np.einsum("tii->ti", H))
    for _ in range(count):
        s = rng.normal(size=(T, D))
        # One task does not move, and one has the pairs of a concave loss.
        s[0] = 0.0
        y = np.einsum("tij,tj->ti", H, s) * np.array([1.0, 1.0, -1.0])[:, None]
        for secants in both:
            secants.add(s, y)
    assert isinstance(both[1].metric(), LowRank)
    np.testing.assert_allclose(metric(both[1]), metric(both[0]), rtol=1e-8, atol=1e-8)
