import numpy as np

from asyncdmtl.learning.anderson import Anderson


def test_linear_maps_are_solved_in_as_many_steps_as_they_have_dimensions() -> None:
    rng = np.random.default_rng(0)
    maps = [0.98 * np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(3)]
    offsets = rng.normal(size=(3, 6))
    exact = np.array([np.linalg.solve(np.eye(6) - M, b) for M, b in zip(maps, offsets, strict=True)])
    x, anderson = np.zeros((3, 6)), Anderson(3, 6, 8)
    for _ in range(12):
        x = anderson.next(x, np.einsum("bij,bj->bi", maps, x) + offsets)
    np.testing.assert_allclose(x, exact, atol=1e-7)


def test_problems_do_not_see_each_other() -> None:
    rng = np.random.default_rng(1)
    shrink, offsets = rng.uniform(0.5, 0.99, size=(4, 5)), rng.normal(size=(4, 5))

    def run(chosen: list[int]) -> np.ndarray:
        x, anderson = np.zeros((len(chosen), 5)), Anderson(len(chosen), 5, 3)
        for _ in range(15):
            x = anderson.next(x, np.sin(shrink[chosen] * x) + offsets[chosen])
        return x

    together = run([0, 1, 2, 3])
    np.testing.assert_array_equal(together[[2]], run([2]))


def test_problems_that_are_done_are_left_out() -> None:
    shrink, offsets = np.array([[0.9, 0.5], [0.8, 0.7]]), np.ones((2, 2))
    x, anderson = np.zeros((2, 2)), Anderson(2, 2, 3)
    for _ in range(4):
        x = anderson.next(x, shrink * x + offsets)
    anderson.keep(np.array([False, True]))
    x = x[1:]
    for _ in range(6):
        x = anderson.next(x, shrink[1:] * x + offsets[1:])
    np.testing.assert_allclose(x, [[5.0, 10.0 / 3.0]], rtol=1e-9)


def test_a_step_that_grows_is_taken_back() -> None:
    """The extrapolation overshoots at the kink of this map, but the iteration converges."""
    x, anderson = np.full((1, 2), 50.0), Anderson(1, 2, 5)
    for _ in range(200):
        x = anderson.next(x, np.maximum(0.9 * x, 0.99 * x - 0.3) - 0.01)
    np.testing.assert_allclose(x, -0.1, atol=1e-8)
