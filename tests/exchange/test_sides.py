from __future__ import annotations

import numpy as np

from asyncdmtl.exchange.sides import Upload, losses_by_partition, reported_by
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]})


def upload(*losses: float) -> Upload:
    return Upload((), 0, (), losses, 0.0, 0.0)


def test_the_first_holder_of_a_partition_reports_its_loss() -> None:
    assert [reported_by(PLACEMENT, k) for k in range(3)] == [(0, 1), (2,), ()]


def test_losses_are_put_in_the_order_of_the_partitions() -> None:
    reported = [(0, 2), (1,), ()]
    found = losses_by_partition(reported, [upload(0.5, 1.5), upload(1.0), upload()])
    assert np.array_equal(found, [0.5, 1.0, 1.5])
