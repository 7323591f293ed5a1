from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.raw_partitions import encoding_of, raw_partition

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition

RNG = np.random.default_rng(0)


def test_numbers_that_are_prepared_need_no_encoding() -> None:
    prepared = Partition("p1", "t", [[1.0], [2.0]], [1.0, 2.0])  # type: ignore[arg-type]
    survey = Survey.from_dict(prepared.declaration().survey)
    encoding = pool({"p1": survey, "p2": survey}, "squared", standardise=True)
    assert encoding.is_empty
    assert encoding == Encoding.empty() == Encoding.from_dict({})
    assert encoding.as_dict() == {}
    assert prepared.encoded(encoding) is prepared
    from_file = raw_partition("p0", {"a": [1, 2]}, [1, 2])
    with pytest.raises(DataError, match=r"must come from files, as 'p0', or all be of numbers.*'p1'"):
        pool({"p0": from_file.survey(), "p1": survey}, "squared", standardise=True)
    with pytest.raises(DataError, match="partition 'p0'"):
        from_file.encoded(encoding)
    with pytest.raises(DataError, match="partition 'p1'"):
        prepared.encoded(encoding_of(from_file))


def test_weights_and_names_come_through() -> None:
    part = raw_partition("p0", {"a": [1, 2]}, [1, 2], weights=[0.5, 2.0])
    done = part.encoded(encoding_of(part))
    assert (done.id, done.task, done.weight, done.y.tolist()) == ("p0", "t", 2.5, [1.0, 2.0])
    assert part.declaration().rows == part.rows == 2
    with pytest.raises(DataError, match="weights of partition 'p0'"):
        raw_partition("p0", {"a": [1, 2]}, [1, 2], weights=[1.0, -1.0]).encoded(encoding_of(part))


def test_digests_depend_on_all_that_a_partition_is() -> None:
    columns = {"a": [1, 2], "b": ["x", None]}
    part = raw_partition("p0", columns, [1, 2])
    assert part.declaration().digest == raw_partition("p0", columns, [1, 2]).digest()
    assert len(part.digest()) == 16
    # Copies may have their columns in another order.
    assert part.digest() == raw_partition("p0", dict(reversed(columns.items())), [1, 2]).digest()
    others = [
        raw_partition("p1", columns, [1, 2]),
        raw_partition("p0", columns, [1, 2], task="u"),
        raw_partition("p0", columns, [1, 3]),
        raw_partition("p0", columns, ["1", "2"]),
        raw_partition("p0", columns, [1, 2], weights=[1, 2]),
        raw_partition("p0", {"a": [1, 2], "c": ["x", None]}, [1, 2]),
        raw_partition("p0", {"a": [1, 2], "b": ["x", ""]}, [1, 2]),
        RawPartition("p0", "t", columns, np.array([1.0, 2.0]), target_name="z"),  # type: ignore[arg-type]
    ]
    assert len({p.digest() for p in [part, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("columns", "y", "message"),
    [
        ({}, [1.0], "columns of partition 'p0'"),
        ({"a": []}, [], "columns of partition 'p0'"),
        ({"a": [1, 2]}, [1.0], "columns of partition 'p0'"),
        ({"a": [1], "b": [1, 2]}, [1.0], "columns of partition 'p0'"),
        ({"a": [1, "x"]}, [1.0, 2.0], "column 'a' of partition 'p0'"),
        ({"a": [1, 2]}, [1.0, None], "target 'y' of partition 'p0'"),
        ({"a": [1, 2]}, [1.0, math.inf], "target 'y' of partition 'p0'"),
        ({"a": [1, 2]}, ["x", None], "target 'y' of partition 'p0'"),
    ],
)
def test_rows_that_make_no_sense_are_refused(columns: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        raw_partition("p0", columns, y)
