from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from support.problems import make_partitions

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.held_back import hold_back
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.prepared_rows import PreparedRows
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import DataError


def test_rows_are_divided_once_for_each_share_and_seed() -> None:
    parts = make_partitions(4, "squared")
    rows = PreparedRows(parts)
    first, other = rows.divided(0.4, 1), rows.divided(0.4, 2)
    assert rows.divided(0.4, 1) is first is not other
    for part, (train, test) in zip(parts, first.pairs, strict=True):
        expected, held = hold_back(part, 0.4, 1)
        assert train.targets.tolist() == expected.targets.tolist()
        assert (test is None) == (held is None)
    assert first.declared is first.declared
    assert [each.rows + each.held for each in first.declared] == [part.rows for part in parts]


def test_without_test_rows_all_seeds_share_the_rows() -> None:
    rows = PreparedRows(make_partitions(2, "squared"))
    assert rows.divided(0.0, 1) is rows.divided(0.0, 2)
    assert rows.divided(0.0, 1).pairs == tuple((part, None) for part in rows.stored)


def test_rows_are_encoded_once_for_each_encoding() -> None:
    columns = {"age": np.array([30.0, 40.0, 50.0]), "sex": np.array(["f", "m", "f"])}
    stored = RawPartition("p", "t", columns, np.array([1.0, 2.0, 4.0]))
    survey = Survey.of(stored.columns, "target", stored.target, "partition 'p'")
    plain, scaled = (pool({"p": survey}, "squared", standardise=standardise) for standardise in (False, True))
    divided = PreparedRows([stored]).divided(0.0, 0)
    first = divided.encoded(plain)
    assert divided.encoded(Encoding.from_dict(plain.as_dict())) is first
    assert divided.encoded(scaled) is not first
    assert first.train[0].X.tolist() == stored.encoded(plain).X.tolist()
    assert not first.tests


def test_what_no_run_uses_is_given_up_when_others_come() -> None:
    rows = PreparedRows(make_partitions(2, "squared"))
    first = weakref.ref(rows.divided(0.4, 1))
    gc.collect()
    assert first() is not None, "the last one stays"
    rows.divided(0.4, 2)
    gc.collect()
    assert first() is None


def test_rows_that_cannot_be_encoded_are_told_each_time() -> None:
    raw = RawPartition("p", "t", {"age": np.array([30.0, 40.0])}, np.array([1.0, 2.0]))
    divided = PreparedRows([raw]).divided(0.0, 0)
    for _ in range(2):
        with pytest.raises(DataError, match="has columns of a file"):
            divided.encoded(Encoding.empty())
