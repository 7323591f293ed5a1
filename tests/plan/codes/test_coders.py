from __future__ import annotations

import numpy as np
import pytest
from support.placements import HOMOGENEOUS

from asyncdmtl.errors import CodingError
from asyncdmtl.field import gf256
from asyncdmtl.plan.planner import make_plan


def test_each_coder_is_made_once() -> None:
    coders = make_plan(HOMOGENEOUS).coders
    assert coders.encoder(2) is coders.encoder(2) is not coders.encoder(3)
    assert coders.decoder(2) is coders.decoder(2)
    assert coders.recombiner is coders.recombiner
    central = make_plan(HOMOGENEOUS, "central", silent=1).coders
    assert central.collector([1, 2, 3, 4, 5]) is central.collector([5, 4, 3, 2, 1, 1])


def test_coders_are_products_with_the_plans_matrices() -> None:
    plan = make_plan(HOMOGENEOUS)
    rng = np.random.default_rng(0)
    packets = rng.integers(0, 256, (plan.uplink_matrix.shape[1], 40), dtype=np.uint8)
    per_vector = packets.reshape(6, plan.subpackets, 40)
    uplink = gf256.matmul(plan.uplink_matrix, packets)
    own = [per_vector[list(stored)].reshape(-1, 40) for stored in plan.placement.stored]
    rows = [plan.coders.encoder(k)(own[k]) for k in range(6)]
    assert np.array_equal(np.vstack(rows), uplink)
    down = plan.coders.recombiner(np.vstack(rows))
    assert np.array_equal(down, gf256.matmul(plan.combined, packets))
    for k, delivery in enumerate(plan.deliveries):
        decoded = plan.coders.decoder(k)(down[list(delivery.rows)], own[k])
        assert np.array_equal(decoded, per_vector[list(delivery.wanted)].reshape(-1, 40))


def test_a_collector_takes_as_many_rows_as_there_are_packets() -> None:
    plan = make_plan(HOMOGENEOUS, "central", silent=2)
    packets = np.random.default_rng(1).integers(0, 256, (plan.uplink_matrix.shape[1], 8), dtype=np.uint8)
    uplink = gf256.matmul(plan.uplink_matrix, packets)
    for responders in (None, [0, 1, 2, 3], [2, 3, 4, 5]):
        chosen, decode = plan.coders.collector(responders)
        assert len(chosen) == len(packets)
        assert np.array_equal(decode(uplink[list(chosen)], ()), packets)
    with pytest.raises(CodingError, match="without the rows of w3, w4, w5"):
        plan.coders.collector([0, 1, 2])
