from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from support.raw_partitions import encoding_of_columns, raw_partition

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def test_rows_to_predict_need_their_columns() -> None:
    encoding = encoding_of_columns({"a": [1, 2, 4], "c": ["x", "y", "z"]})
    rows = {"other": ["?"], "c": ["y"], "a": [2.0]}
    X = encoding.encode_rows(rows)  # type: ignore[arg-type]
    assert X.shape == (1, 4)
    assert X[0, 1:].tolist() == [0.0, 1.0, 0.0]
    assert X.flags.c_contiguous
    with pytest.raises(DataError, match="column 'a' must be among the columns"):
        encoding.encode_rows({"c": np.array(["x"])})
    with pytest.raises(DataError, match="columns must be some, of equal length"):
        encoding.encode_rows({"c": np.array(["x"]), "a": np.ones(2)})


def test_targets_to_test_on_must_be_known() -> None:
    encoding = encoding_of_columns({"a": [1, 2]}, ["no", "yes"], loss="logistic")
    assert encoding.encode_target(np.array(["yes", "no", "yes"])).tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(DataError, match="target 'y' must be 'no' or 'yes', got 'maybe'"):
        encoding.encode_target(np.array(["yes", "maybe"]))
    with pytest.raises(DataError, match="target 'y' must have a value in every row"):
        encoding.encode_target(np.array(["yes", None], dtype=object))
    numbers = encoding_of_columns({"a": [1, 2]})
    with pytest.raises(DataError, match="target 'y' must be finite"):
        numbers.encode_target(np.array([1.0, np.inf]))
    with pytest.raises(DataError, match="target 'y' must be numbers, got 'x'"):
        numbers.encode_target(np.array(["1", "x"]))


def make_encoding() -> Encoding:
    columns = {"a": [1.5, None, 4.0], "c": ["x", "y", None], "k": [1, 1, 1]}
    return encoding_of_columns(columns, ["no", "yes", "no"], loss="logistic")


def test_an_encoding_survives_the_wire_and_gives_the_same_bits() -> None:
    encoding = make_encoding()
    part = raw_partition("p0", {"a": RNG.standard_normal(9), "c": ["x", "y", "x"] * 3}, ["no"] * 9)
    for copy in (
        Encoding.from_dict(msgpack.unpackb(msgpack.packb(encoding.as_dict()))),
        Encoding.from_dict(json.loads(json.dumps(encoding.as_dict()))),
    ):
        assert copy == encoding
        assert part.encoded(copy).digest() == part.encoded(encoding).digest()
    regression = encoding_of_columns({"a": [1, 2]})
    assert Encoding.from_dict(regression.as_dict()) == regression


@pytest.mark.parametrize(
    "change",
    [
        {"columns": []},
        {"columns": None},
        {"columns": [["a"]]},
        {"columns": [["a", {"impute": 0.0, "shift": 0.0, "scale": math.nan}]]},
        {"columns": [["a", {"impute": 0.0, "shift": 0.0, "scale": 1.0}]] * 2},
        {  # two features of one name
            "columns": [
                ["a=x", {"impute": 0.0, "shift": 0.0, "scale": 1.0}],
                ["a", {"values": ["u", "x"], "missing": False}],
            ]
        },
        {"dropped": {}},
        {"dropped": [["k"]]},
        {"dropped": [["k", 1]]},
        {"target": None},
        {"classes": ["no"]},
        {"classes": ["no", "no"]},
        {"classes": ["no", 1]},
        {"classes": "ab"},
        {"more": 1},
    ],
)
def test_an_encoding_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    good = make_encoding().as_dict()
    Encoding.from_dict(good)
    with pytest.raises(UsageError):
        Encoding.from_dict(good | change)


@pytest.mark.parametrize("content", [None, [], "x", {"columns": [["a", {}]]}, {1: 2}])
def test_what_is_no_encoding_at_all_is_refused(content: Any) -> None:
    with pytest.raises(UsageError):
        Encoding.from_dict(content)
