from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings
from support.trees import PLACEMENT

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import UNKEYED
from asyncdmtl.errors import CodingError, DisagreementError, IntegrityError, RemoteProtocolError
from asyncdmtl.exchange.sides import SideOptions, WorkerSide
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.parameters import Strategy
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.relay.sides import RelaySide
from asyncdmtl.relay.strategies import make_relay_side

SETTINGS = make_settings(dtype="float64")
PARTITIONS = make_partitions(6, "squared")
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
TOPOLOGY = Topology(PLACEMENT, {"north": ["a", "b"], "south": ["c", "d"]})
STORED = {name: PLACEMENT.as_dict()[name] for name in "ab"}


def sides(strategy: Strategy = "relay") -> tuple[RelaySide, list[WorkerSide]]:
    """The relay `north`, and the workers behind it."""
    top = TOPOLOGY.placement_of(TOPOLOGY.top)
    plan = make_plan(top, strategy, tasks=PROBLEM.task_of, units="updates", merge=False)
    side = make_relay_side(plan, "north", STORED, PROBLEM, UNKEYED)
    below = side.below.plan
    by_name = {part.id: part for part in PARTITIONS}
    workers = []
    for k, name in enumerate("ab"):
        own = {n: by_name[PLACEMENT.partitions[n]] for n in below.placement.stored[k]}
        options = SideOptions(False, UNKEYED, detailed=True)
        made = EXCHANGE_STRATEGIES[strategy].worker_side(below, k, make_trainer(PROBLEM, own), options)
        assert PLACEMENT.as_dict()[name] == [PLACEMENT.partitions[n] for n in own]
        workers.append(made)
    return side, workers


def first_rows(uploads: list[Upload]) -> list[Bytes]:
    return [upload.rows[0] for upload in uploads]


@pytest.mark.parametrize("strategy", ["relay", "central"])
def test_a_relay_tells_what_its_workers_told(strategy: Strategy) -> None:
    side, workers = sides(strategy)
    uploads = [worker.compute() for worker in workers]
    told = side.agree(uploads)
    # It stores p0, p1 and p2, of which a and b both hold p1.
    assert told.digests == (*uploads[0].digests, uploads[1].digests[1])
    assert told.losses == (*uploads[0].losses, uploads[1].losses[1])
    assert (told.state, told.penalty, told.size) == (uploads[0].state, uploads[0].penalty, side.sent_bytes)
    rows = side.put(0, first_rows(uploads))
    assert rows.nbytes == side.sent_bytes
    side.check_own()


def test_workers_that_computed_other_updates_are_named() -> None:
    side, workers = sides()
    one, other = (worker.compute() for worker in workers)
    odd = replace(other, digests=(bytes(16), *other.digests[1:]))
    with pytest.raises(DisagreementError, match="'p1': a against b"):
        side.agree([one, odd])


def test_a_worker_that_sends_other_rows_than_it_told_is_named() -> None:
    side, workers = sides()
    uploads = [worker.compute() for worker in workers]
    side.agree(uploads)
    rows = [part.copy() for part in first_rows(uploads)]
    rows[1][-1, 0] ^= 1
    side.put(0, rows)
    with pytest.raises(IntegrityError, match=r"'b' sent other updates of \['p2'\]") as error:
        side.check_own()
    assert error.value.workers == ("b",)


def test_what_comes_from_above_is_checked() -> None:
    side, workers = sides()
    uploads = [worker.compute() for worker in workers]
    side.agree(uploads)
    side.put(0, first_rows(uploads))
    with pytest.raises(RemoteProtocolError, match="16 bytes of digests came for 3 vectors"):
        side.take(bytes(16))
    side.take(bytes(48))
    with pytest.raises(CodingError, match="received 5 bytes of rows"):
        side.receive(0, np.zeros(5, np.uint8))
    side.receive(0, np.zeros(side.received_range(0), np.uint8))
    with pytest.raises(IntegrityError, match=r"relay 'north' decoded other vectors of \['p3', 'p4', 'p5'\]"):
        side.finish()
