from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import CodingError, DisagreementError, IntegrityError
from asyncdmtl.exchange import Reply, Sent, ServerSide, WorkerSide
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import Trainer, single_threaded, train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import STRATEGIES
from asyncdmtl.plan.planner import make_plan, rebuild_plan


class Exchange:
    """All sides of a run in one process, with nothing between them."""

    def __init__(
        self, placement: Placement, partitions: list[Partition], settings: Settings, strategy: Any
    ) -> None:
        infos = [part.info(settings) for part in partitions]
        self.problem = Problem(settings, infos)
        self.plan = make_plan(placement, strategy, tasks=self.problem.task_of)
        self.server = ServerSide(self.plan, self.problem)
        self.workers = [
            WorkerSide(
                rebuild_plan(self.plan.recipe(), self.plan.digest),
                k,
                Trainer(self.problem, {n: partitions[n] for n in stored}),
            )
            for k, stored in enumerate(placement.stored)
        ]

    def up(self) -> list[Sent]:
        sent = [worker.compute() for worker in self.workers]
        for k, part in enumerate(sent):
            self.server.check(k, part)
        return sent

    def down(self, replies: list[Reply]) -> None:
        for worker, reply in zip(self.workers, replies, strict=True):
            worker.apply(np.concatenate([np.empty(0, np.uint8), *reply.rows]), reply.digest)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["homogeneous", "heterogeneous"])
@pytest.mark.parametrize(
    ("loss", "dtype", "aggregate"), [("squared", "float32", "mean"), ("logistic", "float64", "median")]
)
def test_every_worker_ends_with_the_twins_models(
    placement: Placement, strategy: Any, loss: str, dtype: str, aggregate: str
) -> None:
    settings = make_settings(loss=loss, dtype=dtype, aggregate=aggregate, rounds=4)
    partitions = make_partitions(len(placement.partitions), loss)
    exchange = Exchange(placement, partitions, settings, strategy)
    twin = train(partitions, settings)
    payload = round_ = 0
    with single_threaded():
        for expected in twin.objectives:
            sent = exchange.up()
            payload += sum(part.rows.nbytes for part in sent)
            assert exchange.server.objective(sent) == float(expected)
            round_ += 1
            replies = exchange.server.combine(sent, round_ == 4)
            exchange.down(replies)
    assert Fraction(payload, 4 * exchange.server.vector_bytes) == exchange.plan.uplink_load
    assert exchange.server.models_agree(
        {k: worker.models_digest() for k, worker in enumerate(exchange.workers)}
    )
    for worker in exchange.workers:
        models = worker.models()
        expected_models = twin.models.of([twin.models.tasks.index(task) for task in models.tasks])
        assert models.coef_.tobytes() == expected_models.coef_.tobytes()
        assert models.intercept_.tobytes() == expected_models.intercept_.tobytes()
        assert len(models.tasks) == len(twin.models.tasks) or strategy == "personal"
    assert np.abs(twin.models.coef_).max() > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replicas_that_disagree_are_named(strategy: Any) -> None:
    partitions = make_partitions(6, "squared")
    exchange = Exchange(HOMOGENEOUS, partitions, make_settings(), strategy)
    odd = partitions[1]
    stored = {n: partitions[n] for n in HOMOGENEOUS.stored[3]}
    stored[1] = Partition(odd.id, odd.task, odd.X, odd.y + 1)
    exchange.workers[3] = WorkerSide(exchange.plan, 3, Trainer(exchange.problem, stored))
    with pytest.raises(DisagreementError, match="'p1': w1, w2 against w3") as caught:
        exchange.server.combine(exchange.up(), False)
    assert caught.value.partitions == ("p1",)
    assert caught.value.odd == {"w3": ("p1",)}


def test_of_two_holders_that_disagree_the_first_is_believed() -> None:
    placement = Placement({"w0": ["p0", "p1"], "w1": ["p0", "p1"]})
    partitions = make_partitions(2, "squared")
    exchange = Exchange(placement, partitions, make_settings(), "relay")
    other = replace(partitions[0], y=partitions[0].y + 1)
    exchange.workers[0] = WorkerSide(
        exchange.plan, 0, Trainer(exchange.problem, {0: other, 1: partitions[1]})
    )
    with pytest.raises(DisagreementError) as caught:
        exchange.server.combine(exchange.up(), False)
    assert caught.value.odd == {"w1": ("p0",)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_corrupted_rows_do_not_reach_a_model(strategy: Any) -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), strategy)
    sent = exchange.up()
    replies = exchange.server.combine(sent, False)
    corrupted = [row.copy() for row in replies[2].rows]
    corrupted[-1][5] ^= 1
    replies[2] = Reply(tuple(corrupted), replies[2].digest)
    trainer = exchange.workers[2].trainer
    before = trainer.W.copy()
    with pytest.raises(IntegrityError, match="worker 'w2' decoded other vectors"):
        exchange.down(replies)
    assert np.array_equal(trainer.W, before)


@pytest.mark.parametrize("strategy", ["central", "personal"])
def test_corrupted_rows_do_not_reach_the_servers_aggregates(strategy: Any) -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), strategy)
    sent = exchange.up()
    rows = sent[2].rows.copy()
    rows.reshape(-1)[5] ^= 1
    before = exchange.server.trainer.W.copy()
    with pytest.raises(IntegrityError, match=r"the server decoded other updates of \['p\d'"):
        exchange.server.combine([*sent[:2], replace(sent[2], rows=rows), *sent[3:]], False)
    assert np.array_equal(exchange.server.trainer.W, before)


def test_sizes_are_those_of_the_plan() -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    (sent, *_) = exchange.up()
    for wrong, what in (
        (Sent(sent.rows[:-1], sent.digests, sent.losses, sent.penalty, 0.0), "bytes of rows"),
        (Sent(sent.rows, sent.digests[1:], sent.losses, sent.penalty, 0.0), "digests"),
        (Sent(sent.rows, sent.digests, (), sent.penalty, 0.0), "losses"),
    ):
        with pytest.raises(CodingError, match=rf"worker 'w0' sent \d+ {what}"):
            exchange.server.check(0, wrong)
    with pytest.raises(CodingError, match="received 3 bytes of rows"):
        exchange.workers[0].apply(np.zeros(3, np.uint8), bytes(8))
