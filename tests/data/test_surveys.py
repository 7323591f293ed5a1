from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncdmtl.data.columns import as_column
from asyncdmtl.data.surveys import Categories, Labels, Moments, Survey
from asyncdmtl.errors import DataError, UsageError

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
        # A deviation is known to half a last place of the numbers themselves.
        assert abs(math.sqrt(found.M2) - math.sqrt(M2)) <= 1e-14 * math.sqrt(M2) + 1e-15 * size


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


def make_survey() -> Survey:
    columns = {
        "age": as_column([30, None, 41], "age"),
        "nothing": as_column([None, None, None], "nothing"),
        "town": as_column(["w10", "w2", None], "town"),
        "smokes": as_column([True, True, False], "smokes"),
    }
    return Survey.of(columns, "ill", as_column([1, 0, 0], "ill"), "partition 'p'")


def test_a_survey_tells_statistics_and_no_rows() -> None:
    survey = make_survey()
    assert survey.columns == {
        "age": Moments(2, 35.5, 60.5),
        "nothing": Moments(0, 0.0, 0.0),
        "town": Categories(("w2", "w10"), 1),
        "smokes": Categories(("False", "True"), 0),
    }
    assert survey.target is not None
    assert survey.target.moments.count == survey.rows
    assert survey.target == Labels("ill", (0.0, 1.0), False, False, survey.target.moments)
    assert Labels.of("y", np.arange(9.0)) == Labels("y", (), False, True, Moments(9, 4.0, 60.0))
    assert Labels.of("y", as_column(list("dcbaa"), "y")) == Labels("y", ("a", "b", "c"), True, True)


def test_a_survey_survives_the_wire() -> None:
    for survey in (make_survey(), Survey()):
        assert Survey.from_dict(msgpack.unpackb(msgpack.packb(survey.as_dict()))) == survey
        assert Survey.from_dict(json.loads(json.dumps(survey.as_dict()))) == survey
    assert Survey().is_empty
    assert not make_survey().is_empty


def change(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of nested content with one item changed, or taken out if `value` is `...`."""
    copy: Any = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rows",), 0),
        (("rows",), True),
        (("rows",), 2.0),
        (("rows",), 2**60),
        (("rows",), 1),  # fewer than the columns say
        (("rows",), ...),
        (("more",), 1),
        (("columns",), []),
        (("columns",), {"age": {}}),
        (("columns", 0), ["age"]),
        (("columns", 0, 0), 5),
        (("columns", 0, 0), "town"),
        (("columns", 0, 1), None),
        (("columns", 0, 1, "mean"), math.nan),
        (("columns", 0, 1, "mean"), "1"),
        (("columns", 0, 1, "M2"), -1.0),
        (("columns", 0, 1, "M2"), math.inf),
        (("columns", 0, 1, "count"), -1),
        (("columns", 0, 1, "count"), 4),
        (("columns", 1, 1, "mean"), 1.0),
        (("columns", 2, 1, "values"), []),
        (("columns", 2, 1, "values"), ["a", "a"]),
        (("columns", 2, 1, "values"), ["a", 1]),
        (("columns", 2, 1, "values"), [str(i) for i in range(1001)]),
        (("columns", 2, 1, "missing"), 4),
        (("target",), None),
        (("target", "values"), [0.0, math.inf]),
        (("target", "values"), [0, 1]),
        (("target", "values"), []),
        (("target", "values"), [0.0, 1.0, 2.0, 3.0]),
        (("target", "text"), True),
        (("target", "name"), b"ill"),
    ],
)
def test_a_survey_that_makes_no_sense_is_refused(path: tuple[Any, ...], value: Any) -> None:
    good = make_survey().as_dict()
    Survey.from_dict(good)
    with pytest.raises(UsageError):
        Survey.from_dict(change(good, path, value))


@pytest.mark.parametrize("content", [None, [], [1], "survey", 5, {1: 2}])
def test_what_is_no_survey_at_all_is_refused(content: Any) -> None:
    with pytest.raises(UsageError):
        Survey.from_dict(content)
