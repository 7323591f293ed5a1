from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from asyncdmtl.arithmetic import sums


def test_the_second_half_is_added_to_the_first() -> None:
    a, b, c, d, e = 1.0, 2.0**-53, 2.0**-53, 2.0**-54, 3.0
    assert sums.total(np.array([a, b, c, d, e])) == ((a + d) + c) + (b + e)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 100, 1023])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_totals_are_near_the_exact_sum(n: int, dtype: type[np.float64]) -> None:
    x = np.random.default_rng(n).normal(size=n).astype(dtype)
    exact = sum(map(Fraction, x.tolist()), Fraction(0))
    bound = max(1, math.ceil(math.log2(max(n, 1)))) * np.finfo(dtype).eps * float(np.abs(x).sum())
    assert abs(Fraction(float(sums.total(x))) - exact) <= Fraction(float(bound))
    assert sums.total(x).dtype == dtype


def test_layout_in_memory_does_not_show() -> None:
    x = np.random.default_rng(1).normal(size=(33, 17, 5))
    for axis in range(3):
        expected = sums.total(x, axis)
        strided = np.asfortranarray(x)
        reversed_twice = x[::-1, :, ::-1].copy()[::-1, :, ::-1]
        by_lines = np.apply_along_axis(sums.total, axis, x)
        for other in (sums.total(strided, axis), sums.total(reversed_twice, axis), by_lines):
            assert np.array_equal(expected, other)


def test_arguments_are_left_alone() -> None:
    x = np.random.default_rng(2).normal(size=(9, 4))
    before = x.copy()
    for f in (sums.total, sums.mean, sums.norm, sums.sum_of_squares):
        f(x)
    assert np.array_equal(x, before)
    assert not np.shares_memory(sums.total(x[:1]), x)


def test_means_and_norms() -> None:
    x = np.array([[3.0, 1.0], [4.0, 2.0]])
    assert sums.norm(x).tolist() == [5.0, math.sqrt(5.0)]
    assert sums.norm(x, 1).tolist() == [math.sqrt(10.0), math.sqrt(20.0)]
    assert sums.mean(x).tolist() == [3.5, 1.5]
    assert sums.sum_of_squares(np.empty((0, 2))).tolist() == [0.0, 0.0]


def test_exact_sums_do_not_depend_on_order() -> None:
    x = np.array([1e100, 1.0, -1e100, 2.0**-60])
    assert sums.exact_sum(x) == sums.exact_sum(x[::-1]) == 1.0 + 2.0**-60
    assert sums.exact_sum(np.array([1e308, 1e308])) == math.inf
    assert math.isnan(sums.exact_sum(np.array([np.inf, -np.inf])))
