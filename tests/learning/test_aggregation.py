from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.aggregation import AGGREGATES, mean_of_sums, weighted_sum
from asyncdmtl.plan.spans import Span

ROBUST = [name for name in AGGREGATES if name != "mean"]


@given(n=st.integers(1, 7), d=st.integers(1, 5), seed=st.integers(0, 999))
def test_mean_is_weighted_by_rows(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates, weights = rng.standard_normal((n, d)), rng.integers(1, 50, n).astype(float)
    expected = np.average(updates, axis=0, weights=weights)
    assert AGGREGATES["mean"](updates, weights) == pytest.approx(expected, abs=1e-12)


@given(n=st.integers(3, 9), seed=st.integers(0, 999))
def test_median_withstands_fewer_than_half(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((n, 4))
    right = updates[(n - 1) // 2 :]
    updates[: (n - 1) // 2] = rng.choice([-1e12, 1e12], ((n - 1) // 2, 4))
    z = AGGREGATES["median"](updates, np.ones(n))
    assert ((right.min(axis=0) <= z) & (z <= right.max(axis=0))).all()


@pytest.mark.parametrize("name", AGGREGATES)
def test_one_update_stays_itself_and_arguments_stay_untouched(name: str) -> None:
    updates, weights = np.array([[1.0, -2.0, 3.0]]), np.array([4.0])
    assert AGGREGATES[name](updates, weights).tolist() == [1.0, -2.0, 3.0]
    assert updates.tolist() == [[1.0, -2.0, 3.0]]


def test_median_goes_by_coordinate_and_not_by_weight() -> None:
    updates = np.array([[1.0, 30.0], [2.0, 10.0], [9.0, 20.0]])
    assert AGGREGATES["median"](updates, np.array([100.0, 1.0, 1.0])).tolist() == [2.0, 20.0]


@pytest.mark.parametrize("outlier", [1e12, -1e300, np.inf, np.nan])
@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_one_wrong_update_of_any_size_does_no_harm(name: str, n: int, outlier: float) -> None:
    right = np.random.default_rng(n).standard_normal((n - 1, 4))
    radius = np.linalg.norm(right, axis=1).max()
    for position in (0, n - 1):
        updates = np.insert(right, position, np.full(4, outlier), axis=0)
        z = AGGREGATES[name](updates, np.ones(n))
        # The largest of the bounds is that of the geometric median of three, with α = 1/3.
        assert np.linalg.norm(z) <= radius * 2 / np.sqrt(3) + 1e-9 or (np.abs(z) <= np.abs(right).max()).all()


@given(n=st.integers(3, 16), seed=st.integers(0, 999))
def test_trimmed_mean_withstands_its_share(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((n, 4))
    f = min(-(-n // 5), (n - 1) // 2)
    right = updates[f:]
    updates[:f] = rng.choice([-1e12, 1e12], (f, 4))
    z = AGGREGATES["trimmed-mean"](updates, np.ones(n))
    assert ((right.min(axis=0) <= z) & (z <= right.max(axis=0))).all()
    assert (z == AGGREGATES["trimmed-mean"](updates[rng.permutation(n)], rng.random(n))).all()


def test_trimmed_mean_of_few_and_of_many() -> None:
    values = np.array([[5.0], [1.0], [100.0], [2.0], [3.0], [4.0]])
    trimmed = [AGGREGATES["trimmed-mean"](values[:n], np.ones(n))[0] for n in range(1, 7)]
    assert trimmed == pytest.approx([5.0, 3.0, 5.0, 3.5, 10 / 3, 3.5])


@given(n=st.integers(3, 12), seed=st.integers(0, 999), size=st.sampled_from([1.0, 1e3, 1e12]))
@settings(deadline=None)
def test_geometric_median_stays_within_its_bound(n: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    updates, weights = rng.standard_normal((n, 4)), rng.integers(1, 9, n).astype(float)
    wrong = np.cumsum(weights) < 0.49 * weights.sum()
    updates[wrong] = size * rng.standard_normal(4)
    share = weights[wrong].sum() / weights.sum()
    radius = np.linalg.norm(updates[~wrong], axis=1).max()
    z = AGGREGATES["geometric-median"](updates, weights)
    assert np.linalg.norm(z) <= radius * (1 - share) / np.sqrt(1 - 2 * share) + 1e-9


@given(n=st.integers(1, 8), d=st.integers(1, 5), seed=st.integers(0, 999), doubled=st.booleans())
@settings(deadline=None)
def test_geometric_median_has_the_least_sum_of_distances(n: int, d: int, seed: int, doubled: bool) -> None:
    rng = np.random.default_rng(seed)
    # Small whole numbers, so that some updates coincide or lie in a line.
    updates, weights = rng.integers(-2, 3, (n, d)).astype(float), rng.integers(1, 4, n).astype(float)
    if doubled:
        updates, weights = np.concatenate([updates, updates]), np.concatenate([weights, weights])

    def distances(z: Floats) -> float:
        return float(weights @ np.linalg.norm(updates - z, axis=1))

    z = AGGREGATES["geometric-median"](updates, weights)
    others = [*updates, *(z + 1e-3 * rng.standard_normal((20, d)))]
    others.append(minimize(distances, updates.mean(axis=0), method="Nelder-Mead").x)
    assert distances(z) <= min(map(distances, others)) + 1e-8 * weights.sum()
    order = rng.permutation(len(updates))
    assert AGGREGATES["geometric-median"](updates[order], weights[order]) == pytest.approx(z, abs=1e-6)


def test_geometric_median_of_a_heavy_minority_keeps_its_digits() -> None:
    updates = np.concatenate([np.full((4, 3), 1e12), np.eye(3)])
    z = AGGREGATES["geometric-median"](updates, np.array([1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0]))
    offsets = np.eye(3) - z
    pull = (9.0 / np.linalg.norm(offsets, axis=1)) @ offsets + 4.0 / np.sqrt(3)
    assert np.abs(pull).max() < 1e-8


def test_geometric_median_of_two_and_of_too_many_that_are_infinite() -> None:
    updates = np.array([[0.0, 2.0], [4.0, 0.0]])
    assert AGGREGATES["geometric-median"](updates, np.ones(2)).tolist() == [2.0, 1.0]
    assert AGGREGATES["geometric-median"](updates, np.array([1.0, 3.0])) == pytest.approx([4.0, 0.0])
    assert np.isnan(AGGREGATES["geometric-median"](np.full((3, 2), np.inf), np.ones(3))).all()


def test_geometric_median_passes_through_an_update_that_is_not_it() -> None:
    # The search begins at 0, the median of each coordinate, which is an update but not the geometric median.
    updates = np.array([[0.0, 0.0, 0.0], [5.0, -1.0, -1.0], [-1.0, 5.0, -1.0], [-1.0, -1.0, 5.0]])
    updates = np.concatenate([updates, [[0.0, 3.0, 3.0], [3.0, 0.0, 3.0], [3.0, 3.0, 0.0]]])
    weights = np.array([0.2, 1.0, 1.0, 1.0, 0.4, 0.4, 0.4])
    z = AGGREGATES["geometric-median"](updates, weights)
    offsets = updates - z
    pull = (weights / np.linalg.norm(offsets, axis=1)) @ offsets
    assert np.abs(pull).max() < 1e-8


@given(n=st.integers(3, 13), seed=st.integers(0, 999), size=st.sampled_from([1.0, 3.0, 1e12]))
def test_krum_withstands_any_minority(n: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((n, 4))
    wrong = (n - 1) // 2
    right = updates[wrong:]
    updates[:wrong] = size * rng.standard_normal(4)
    f = (n - 3) // 2
    diameter = max(np.linalg.norm(v - w) for v in right for w in right)
    z = AGGREGATES["krum"](updates, np.ones(n))
    nearest = np.linalg.norm(right - z, axis=1).min()
    assert nearest <= diameter * np.sqrt((n - f - 2) / (n - 2 * f - 2)) * (1 + 1e-12)
    assert (updates == z).all(axis=1).any()


def test_geometric_median_beside_an_update_that_nearly_holds() -> None:
    # The pulls on an update barely exceed its weight: plain Weiszfeld steps would take tens of thousands of
    # rounds.
    updates = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, -1.0], [-3.0, 0.2]])
    offsets = updates[1:] / np.linalg.norm(updates[1:], axis=1)[:, None]
    weights = np.array([np.linalg.norm(offsets.sum(axis=0)) * (1 - 1e-6), 1.0, 1.0, 1.0])
    z = AGGREGATES["geometric-median"](updates, weights)
    from_z = updates - z
    pull = (weights / np.linalg.norm(from_z, axis=1)) @ from_z
    assert 0 < np.linalg.norm(z) < 1e-4
    assert np.linalg.norm(pull) < 1e-9 * weights.sum()


def test_krum_scores_the_nearest_and_ties_go_to_the_first() -> None:
    updates = np.array([[9.0], [0.0], [1.0], [3.0], [2.5]])
    # n = 5, f = 1, two nearest each: 0 → 1 + 6.25, 1 → 1 + 2.25, 3 → 0.25 + 4, 2.5 → 0.25 + 2.25.
    assert AGGREGATES["krum"](updates, np.ones(5)).tolist() == [2.5]
    assert AGGREGATES["krum"](np.array([[7.0], [2.0], [1.0]]), np.ones(3)).tolist() == [2.0]
    assert AGGREGATES["krum"](np.array([[1.0], [4.0]]), np.array([2.0, 1.0])).tolist() == [2.0]


@pytest.mark.parametrize("name", AGGREGATES)
def test_equal_updates_are_their_own_aggregate(name: str) -> None:
    updates = np.tile(np.array([0.1, -0.7, 1e-8]), (7, 1))
    assert AGGREGATES[name](updates, np.arange(1.0, 8.0)) == pytest.approx(updates[0], rel=1e-14)


@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregates_repeat_to_the_bit_and_leave_their_arguments(name: str) -> None:
    rng = np.random.default_rng(6)
    updates, weights = rng.standard_normal((6, 300)), rng.integers(1, 9, 6).astype(float)
    before = updates.copy()
    one, other = (AGGREGATES[name](updates, weights) for _ in range(2))
    assert one.tobytes() == other.tobytes()
    one += 1.0
    assert (updates == before).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_the_mean_has_the_same_bits_whichever_sums_have_taken_the_place_of_updates(
    n: int, dtype: type
) -> None:
    rng = np.random.default_rng(n)
    updates: Any = rng.standard_normal((n, 50)).astype(dtype)
    weights = rng.uniform(0.5, 9.0, n)
    single = {Span(i, i + 1): v for i, v in enumerate(updates)}
    expected: Any = AGGREGATES["mean"](updates, weights).astype(dtype)

    def check(given: dict[Span, Any], span: Span) -> None:
        assert mean_of_sums(given, weights, np.dtype(dtype)).astype(dtype).tobytes() == expected.tobytes()
        if span.single:
            return
        for half in span.halves:
            check(given, half)
        if span != (0, n):
            inside = {part: v for part, v in given.items() if span.start <= part.start < span.stop}
            total: Any = weighted_sum(span, inside, weights, np.dtype(dtype)).astype(dtype)
            check({part: v for part, v in given.items() if part not in inside} | {span: total}, Span(0, 1))

    check(single, Span(0, n))
    exact = (updates.astype(np.longdouble).T @ weights) / weights.sum()
    assert np.abs(expected - exact).max() <= 4 * np.finfo(dtype).eps * np.abs(updates).max()


def test_sums_overflow_only_if_the_mean_does() -> None:
    updates: Any = np.full((3, 2), 3e38, np.float32)
    weights = np.array([1e300, 2e300, 1e300])
    assert AGGREGATES["mean"](updates, weights) == pytest.approx(np.full(2, 3e38), rel=1e-6)
