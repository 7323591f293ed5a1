from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError, DisagreementError, IntegrityError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.sides import Upload, WorkerSide
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES, strategy_of
from asyncdmtl.field.gf256 import kernel_name
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import single_threaded, train
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipe import rebuild_plan


class Exchange:
    """All sides of a run in one process, with nothing between them."""

    def __init__(
        self, placement: Placement, partitions: list[Partition], settings: Settings, strategy: Any
    ) -> None:
        infos = [part.info(settings) for part in partitions]
        self.problem = Problem(settings, infos)
        self.plan = make_plan(placement, strategy, tasks=self.problem.task_of)
        made = strategy_of(self.plan)
        self.server = made.server_side(self.plan, self.problem)
        self.workers: list[WorkerSide] = [
            made.worker_side(
                rebuild_plan(self.plan.recipe(), self.plan.digest),
                k,
                Trainer(self.problem, {n: partitions[n] for n in stored}),
            )
            for k, stored in enumerate(placement.stored)
        ]

    def up(self) -> list[Upload]:
        sent = [worker.compute() for worker in self.workers]
        for k, part in enumerate(sent):
            self.server.check(k, part)
        return sent

    def combine(self, sent: list[Upload], last: bool) -> list[list[Bytes]]:
        """Range by range, what each worker is sent."""
        server = self.server
        server.agree(sent)
        replies: list[list[Bytes]] = [[] for _ in self.workers]
        for i in range(len(server.ranges)):
            server.put(i, [part.rows[i] for part in sent])
            if server.streams:
                self._reply(i, replies)
        if not server.streams:
            server.finish(last)
            for i in range(len(server.ranges)):
                self._reply(i, replies)
        return replies

    def _reply(self, i: int, replies: list[list[Bytes]]) -> None:
        for k, reply in enumerate(replies):
            reply.append(np.concatenate([np.empty(0, np.uint8), *self.server.rows(k, i)]))

    def down(self, replies: list[list[Bytes]]) -> None:
        for k, (worker, reply) in enumerate(zip(self.workers, replies, strict=True)):
            assert sum(map(len, reply)) == worker.received_bytes == self.server.downlink_bytes(k)
            for i, rows in enumerate(reply):
                worker.receive(i, rows)
            worker.apply(self.server.digest(k))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("placement", [HOMOGENEOUS, HETEROGENEOUS], ids=["homogeneous", "heterogeneous"])
@pytest.mark.parametrize(
    ("loss", "dtype", "aggregate"), [("squared", "float32", "mean"), ("logistic", "float64", "median")]
)
def test_every_worker_ends_with_the_twins_models(
    placement: Placement, strategy: Any, loss: str, dtype: str, aggregate: str
) -> None:
    settings = make_settings(loss=loss, dtype=dtype, aggregate=aggregate, rounds=4)
    check_against_twin(placement, strategy, make_partitions(len(placement.partitions), loss), settings)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_vectors_of_several_ranges_end_with_the_twins_models(strategy: Any) -> None:
    partitions = make_partitions(len(HETEROGENEOUS.partitions), "squared", features=20_001)
    settings = make_settings(rounds=2)
    exchange = check_against_twin(HETEROGENEOUS, strategy, partitions, settings)
    assert len(exchange.server.ranges) > 1


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize("compression", ["float16", "bfloat16", "int8"])
def test_compressed_updates_are_decoded_exactly(strategy: Any, compression: str) -> None:
    partitions = make_partitions(len(HETEROGENEOUS.partitions), "squared")
    settings = make_settings(compression=compression, dtype="float64", rounds=5)
    exchange = check_against_twin(HETEROGENEOUS, strategy, partitions, settings)
    assert exchange.server.vector_bytes < exchange.problem.d * 8


def check_against_twin(
    placement: Placement, strategy: Any, partitions: list[Partition], settings: Settings
) -> Exchange:
    exchange = Exchange(placement, partitions, settings, strategy)
    twin = train(partitions, settings)
    payload = round_ = 0
    with single_threaded():
        for expected in twin.objectives:
            sent = exchange.up()
            payload += sum(part.size for part in sent)
            assert exchange.server.convergence(sent).objective == float(expected)
            round_ += 1
            replies = exchange.combine(sent, round_ == settings.rounds)
            exchange.down(replies)
    assert Fraction(payload, settings.rounds * exchange.server.vector_bytes) == exchange.plan.uplink_load
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
    return exchange


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replicas_that_disagree_are_named(strategy: Any) -> None:
    partitions = make_partitions(6, "squared")
    exchange = Exchange(HOMOGENEOUS, partitions, make_settings(), strategy)
    odd = partitions[1]
    stored = {n: partitions[n] for n in HOMOGENEOUS.stored[3]}
    stored[1] = Partition(odd.id, odd.task, odd.X, odd.y + 1)
    exchange.workers[3] = EXCHANGE_STRATEGIES[strategy].worker_side(
        exchange.plan, 3, Trainer(exchange.problem, stored)
    )
    with pytest.raises(DisagreementError, match="'p1': w1, w2 against w3") as caught:
        exchange.combine(exchange.up(), False)
    assert caught.value.partitions == ("p1",)
    assert caught.value.odd == {"w3": ("p1",)}


def test_of_two_holders_that_disagree_the_first_is_believed() -> None:
    placement = Placement({"w0": ["p0", "p1"], "w1": ["p0", "p1"]})
    partitions = make_partitions(2, "squared")
    exchange = Exchange(placement, partitions, make_settings(), "relay")
    other = replace(partitions[0], y=partitions[0].y + 1)
    exchange.workers[0] = EXCHANGE_STRATEGIES["relay"].worker_side(
        exchange.plan, 0, Trainer(exchange.problem, {0: other, 1: partitions[1]})
    )
    with pytest.raises(DisagreementError) as caught:
        exchange.combine(exchange.up(), False)
    assert caught.value.odd == {"w1": ("p0",)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_corrupted_rows_do_not_reach_a_model(strategy: Any) -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), strategy)
    sent = exchange.up()
    replies = exchange.combine(sent, False)
    replies[2][-1][5] ^= 1
    trainer = exchange.workers[2].trainer
    before = trainer.W.copy()
    with pytest.raises(IntegrityError, match="worker 'w2' decoded other vectors"):
        exchange.down(replies)
    assert np.array_equal(trainer.W, before)


@pytest.mark.parametrize("strategy", ["central", "personal"])
def test_corrupted_rows_do_not_reach_the_servers_aggregates(strategy: Any) -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), strategy)
    sent = exchange.up()
    (rows,) = (part.copy() for part in sent[2].rows)
    rows.reshape(-1)[5] ^= 1
    trainer = exchange.server.trainer or Trainer(exchange.problem, {})
    before = trainer.W.copy()
    with pytest.raises(IntegrityError, match=r"the server decoded other updates of \['p\d'"):
        exchange.combine([*sent[:2], replace(sent[2], rows=(rows,)), *sent[3:]], False)
    assert np.array_equal(trainer.W, before)


def test_sizes_are_those_of_the_plan() -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    (sent, *_) = exchange.up()
    for wrong, what in (
        (replace(sent, size=sent.size - 1), "bytes of rows"),
        (replace(sent, digests=sent.digests[1:]), "digests"),
        (replace(sent, losses=()), "losses"),
    ):
        with pytest.raises(CodingError, match=rf"worker 'w0' sent \d+ {what}"):
            exchange.server.check(0, wrong)
    with pytest.raises(CodingError, match="received 3 bytes of rows"):
        exchange.workers[0].receive(0, np.zeros(3, np.uint8))


@pytest.mark.skipif(kernel_name() != "isa-l", reason="no ISA-L on this machine")
def test_short_updates_are_encoded_by_calls_that_are_ready() -> None:
    exchange = Exchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    exchange.up()
    sides = [worker for worker in exchange.workers if isinstance(worker, CodedWorkerSide)]
    ready = [worker._encode._product._remembered for worker in sides]
    # A coefficient may be 0: structure is not remembered.
    assert sum(call is not None for call in ready) >= len(ready) // 2
    assert all(
        call.sources is worker._own for call, worker in zip(ready, sides, strict=True) if call is not None
    )
