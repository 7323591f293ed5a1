from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from support.problems import make_settings

from asyncdmtl.exchange.sides import losses_by_partition, measured
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]})


def upload(*losses: float) -> Upload:
    return Upload((), 0, (), losses, 0.0, 0.0)


def test_the_first_holder_of_a_partition_counts() -> None:
    found = losses_by_partition(PLACEMENT, [upload(0.5, 1.0), upload(7.0, 1.5), upload(8.0, 9.0)])
    assert np.array_equal(found, [0.5, 1.0, 1.5])


def test_three_workers_measure_the_penalty_and_all_the_residual() -> None:
    part = PartitionInfo("a", "t", bytes(16), 1, 1.0, 1, 1.0, "", 0, b"")
    problem = Problem(make_settings(), [part])
    trainer: Any = SimpleNamespace(penalty=lambda: 2.0, residual=0.5, problem=problem)
    assert [measured(trainer, k) for k in range(4)] == [(2.0, 0.5)] * 3 + [(0.0, 0.5)]
