"""Raw partitions as from files, and the encoding pooled from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.surveys import Survey


def raw_partition(
    name: str, columns: Mapping[str, Any], y: Any, task: str = "t", **more: Any
) -> RawPartition:
    return RawPartition(name, task, columns, y, target_name="y", **more)


def encoding_of(*partitions: RawPartition, loss: str = "squared", standardise: bool = True) -> Encoding:
    """The encoding of some partitions, whose surveys go through plain types as on the wire."""
    surveys = {p.id: Survey.from_dict(p.declaration().survey) for p in partitions}
    return pool(surveys, loss, standardise=standardise)


def encoding_of_columns(columns: Mapping[str, Any], y: Any = None, **options: Any) -> Encoding:
    """The encoding of one partition with these columns."""
    rows = len(next(iter(columns.values())))
    return encoding_of(raw_partition("p0", columns, np.arange(rows) if y is None else y), **options)
