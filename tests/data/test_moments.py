from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncdmtl.data.moments import Moments
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import DataError

RNG = np.random.default_rng(0)


def exact(values: list[float]) -> tuple[float, float]:
    """Mean and M2 without rounding."""
    numbers = list(map(Fraction, values))
    mean = sum(numbers, Fraction(0)) / len(numbers)
    return float(mean), float(sum(((x - mean) ** 2 for x in numbers), Fraction(0)))


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=40),
    offset=st.sampled_from([0.0, 1.0, 1e8]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_pooled_moments_are_those_of_all_rows(values: list[float], offset: float, cuts: list[int]) -> None:
    rows = np.array(values) + offset
    mean, M2 = exact(rows.tolist())
    parts = [Moments.of(part) for part in np.split(rows, sorted(cuts))]
    size = float(np.abs(rows).max())
    for found in (Moments.of(rows), Moments.pooled(parts), Moments.pooled(parts[::-1])):
        assert found.count == len(rows)
        assert abs(found.mean - mean) <= 1e-15 * size
        # A deviation is accurate to half a unit in the last place of the numbers themselves.
        assert abs(math.sqrt(found.M2) - math.sqrt(M2)) <= 1e-14 * math.sqrt(M2) + 1e-15 * size + 1e-140


def test_moments_of_many_rows_are_exact_to_the_last_places() -> None:
    rows = RNG.lognormal(0.0, 2.0, 5001) + 100.0
    mean, M2 = exact(rows.tolist())
    pooled = Moments.pooled([Moments.of(part) for part in np.array_split(rows, 137)])
    for found in (Moments.of(rows), pooled):
        assert found.mean == pytest.approx(mean, rel=4e-16)
        assert abs(found.M2 - M2) <= 2e-15 * M2


@pytest.mark.parametrize("value", [0.1, -1e-300, 1e200, 1 / 3])
def test_a_constant_has_no_deviation_however_it_is_cut(value: float) -> None:
    parts = [Moments.of(np.full(rows, value)) for rows in (1, 3, 7, 0, 49)]
    assert Moments.pooled(parts) == Moments(60, value, 0.0)


@pytest.mark.parametrize("values", [[1.0, np.inf], [1e200, -1e200], [1e308, -1e308]])
def test_numbers_that_have_no_moments_are_refused(values: list[float]) -> None:
    with pytest.raises(
        DataError, match=r"column 'a' of partition 'p' (must be finite|has numbers too large)"
    ):
        Survey.of({"a": np.array(values)}, "y", np.ones(len(values)), "partition 'p'")
    if np.isfinite(values).all():
        with pytest.raises(DataError, match="too large"):
            Moments.pooled([Moments.of(np.array([value])) for value in values])


def test_numbers_that_differ_by_little_are_not_constant() -> None:
    tiny = np.array([1.77e-202, 2e-202])
    assert Moments.of(tiny).M2 == Moments.pooled([Moments.of(tiny[:1]), Moments.of(tiny[1:])]).M2 > 0.0
    assert Moments.of(tiny[[0, 0]]).M2 == Moments.pooled([Moments.of(tiny[:1])] * 2).M2 == 0.0
    # Beside numbers of another size they count as the zeros that they nearly are.
    both = Moments.pooled([Moments.of(tiny), Moments.of(np.array([1.0, 2.0]))])
    assert both == Moments.pooled([Moments.of(np.zeros(2)), Moments.of(np.array([1.0, 2.0]))])


def test_columns_have_together_the_moments_that_each_has_alone() -> None:
    table = {f"c{i}": RNG.normal(i, 3.0, 37) for i in range(5)} | {"same": np.full(37, 0.1)}
    table["c2"][[3, 7]] = np.nan
    table["none"] = np.full(37, np.nan)
    alone = {name: Moments.of(column[~np.isnan(column)]) for name, column in table.items()}
    assert Moments.of_columns(table) == alone
    assert list(Moments.of_columns(table)) == list(table)
    table["c4"][5] = np.inf
    with pytest.raises(DataError, match="c4 must be finite, got inf"):
        Moments.of_columns(table)
    assert Moments.of_columns({}) == {}
