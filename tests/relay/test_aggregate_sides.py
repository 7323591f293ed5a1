from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings
from support.trees import PLACEMENT

from asyncdmtl.digests import UNKEYED
from asyncdmtl.errors import IntegrityError, UsageError
from asyncdmtl.exchange.coded_server import PersonalServerSide
from asyncdmtl.exchange.coded_worker import PersonalWorkerSide
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import make_trainer, train
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.relay.aggregate_sides import PersonalSide
from asyncdmtl.relay.strategies import make_relay_side

TOPOLOGY = Topology(PLACEMENT, {"north": ["a", "b"], "south": ["c", "d", "e"]})
SETTINGS = make_settings(dtype="float64", coupling="l21", strength=0.3)


class PersonalTree:
    """All sides of the rounds of a run under `personal` with two relays."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        partitions = make_partitions(6, "squared")
        self.problem = Problem(settings, [part.info(settings) for part in partitions])
        top = TOPOLOGY.placement_of(TOPOLOGY.top)
        plan = make_plan(top, "personal", tasks=self.problem.task_of, units="updates", merge=False)
        self.server = PersonalServerSide(plan, self.problem)
        self.relays: list[PersonalSide] = []
        self.workers: list[list[PersonalWorkerSide]] = []
        for relay, names in TOPOLOGY.relays.items():
            stored = {name: PLACEMENT.as_dict()[name] for name in names}
            side = make_relay_side(plan, relay, stored, self.problem, UNKEYED)
            assert isinstance(side, PersonalSide)
            below = side.below.plan
            self.relays.append(side)
            held = [{n: partitions[n] for n in below.placement.stored[k]} for k in range(len(names))]
            options = SideOptions(digest=UNKEYED)
            self.workers.append(
                [
                    PersonalWorkerSide(below, k, make_trainer(self.problem, own), options)
                    for k, own in enumerate(held)
                ]
            )

    def up(self) -> None:
        """Let all send what they compute; the server decodes it."""
        told, rows = [], []
        for side, workers in zip(self.relays, self.workers, strict=True):
            uploads = [worker.compute() for worker in workers]
            expected = side.below.expected_checks(final=False)
            assert [upload.state for upload in uploads] == expected[: len(workers)]
            told.append(side.agree(uploads))
            rows.append(side.put(0, [upload.rows[0] for upload in uploads]))
            side.check_own()
        assert [each.state for each in told] == self.server.expected_checks(final=False)
        self.server.agree(told)
        self.server.put(0, rows)

    def down(self, *, last: bool) -> None:
        """Let all take the server's models."""
        self.server.finish(last)
        for h, (side, workers) in enumerate(zip(self.relays, self.workers, strict=True)):
            side.take(self.server.told(h, relay=True))
            side.receive(0, np.concatenate([*self.server.rows(h, 0)]).reshape(-1))
            side.finish()
            for k, worker in enumerate(workers):
                worker.receive(0, np.concatenate([*side.below.rows(k, 0)]).reshape(-1))
                worker.apply(side.below.digest(k))


def test_models_reach_the_workers_whose_tasks_they_are_of() -> None:
    tree = PersonalTree()
    for round_ in range(4):
        tree.up()
        tree.down(last=round_ == 3)
    twin = train(make_partitions(6, "squared"), replace(SETTINGS, rounds=4)).models
    for h, (side, workers) in enumerate(zip(tree.relays, tree.workers, strict=True)):
        for worker in workers:
            models = worker.models()
            same = twin.of([twin.tasks.index(task) for task in models.tasks])
            assert np.array_equal(models.coef_, same.coef_)
        told = [worker.final_check() for worker in workers]
        assert side.below.expected_checks(final=True)[: len(workers)] == told
        assert side.final_check(b"another") == tree.server.expected_checks(final=True)[h]


def test_a_relay_is_sent_the_models_of_its_tasks_only() -> None:
    tree = PersonalTree()
    north, south = tree.relays
    assert (north.received_bytes, south.received_bytes) == (2 * 10 * 8, 3 * 10 * 8)
    assert north.side_information(0).size == 0


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_relay_goes_on_from_the_state_that_its_nodes_were_given(rounds: int) -> None:
    """After one round there is no momentum, and l2,1 has left -0, which the server tells as 0."""
    tree, anew = PersonalTree(), PersonalTree()
    for _ in range(rounds):
        tree.up()
        tree.down(last=False)
    trainer = tree.server.trainer
    if rounds == 1:
        before = trainer._iterate._before
        assert before is not None
        trainer.W[0], before[0] = -0.0, 1.0
    state = trainer.state()
    anew.server.trainer.restore(state)
    for side, workers in zip(anew.relays, anew.workers, strict=True):
        side.restore(state)
        for worker in workers:
            worker.trainer.restore(state)
    anew.up()
    with pytest.raises(UsageError, match="state must be"):
        anew.relays[0].restore(state[1:])


def test_models_that_are_not_those_that_the_server_tells_reach_no_worker() -> None:
    tree = PersonalTree()
    tree.up()
    tree.server.finish(False)
    side = tree.relays[0]
    before = side.trainer.W.copy()
    rows = np.concatenate([*tree.server.rows(0, 0)]).reshape(-1).copy()
    rows[3] ^= 1
    side.take(tree.server.told(0, relay=True))
    side.receive(0, rows)
    with pytest.raises(IntegrityError, match=r"relay 'north' decoded other vectors of \['t0'\]"):
        side.finish()
    assert np.array_equal(side.trainer.W, before)


def test_models_are_handed_on_by_a_new_plan() -> None:
    tree = PersonalTree()
    tree.up()
    tree.down(last=False)
    side = tree.relays[0]
    stored = {name: PLACEMENT.as_dict()[name] for name in "ab"}
    again = make_relay_side(tree.server.plan, "north", stored, tree.problem, UNKEYED, trainer=side.trainer)
    assert again.trainer is side.trainer
    assert again.below.expected_checks(final=False) == side.below.expected_checks(final=False)
