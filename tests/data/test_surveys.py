from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from support.raw_partitions import raw_partition

from asyncdmtl.data.columns import as_column
from asyncdmtl.data.moments import Moments
from asyncdmtl.data.surveys import Categories, Labels, Survey
from asyncdmtl.errors import DataError, UsageError

RNG = np.random.default_rng(0)


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
    """A copy of nested content with one item changed, or removed if `value` is `...`."""
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
        (("fingerprints", "columns", 0, 1), 10**15),
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


def test_what_is_told_of_a_target_makes_sense() -> None:
    survey = raw_partition("p0", {"a": [1, 2]}, [10, 12]).survey().as_dict()
    for moments in (
        {"count": 0, "mean": 0.0, "M2": 0.0},
        {"count": 3, "mean": 1.0, "M2": 0.0},
        {"count": 2, "mean": float("inf"), "M2": 0.0},
    ):
        with pytest.raises(UsageError, match="survey of the target"):
            Survey.from_dict({**survey, "target": {**survey["target"], "moments": moments}})
    with pytest.raises(DataError, match=r"target 'y' of partition 'p0'.*too large to be squared"):
        raw_partition("p0", {"a": [1, 2]}, [1e200, -1e200]).survey()
