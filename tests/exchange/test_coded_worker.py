from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.exchange import RoundExchange
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.errors import IntegrityError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.field.gf256 import kernel_name
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement


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
) -> RoundExchange:
    exchange = RoundExchange(placement, partitions, settings, strategy)
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
    told = [worker.final_check() for worker in exchange.workers]
    assert told == (exchange.server.expected_checks(final=True) or told[:1] * len(told))
    for worker in exchange.workers:
        models = worker.models()
        expected_models = twin.models.of([twin.models.tasks.index(task) for task in models.tasks])
        assert models.coef_.tobytes() == expected_models.coef_.tobytes()
        assert models.intercept_.tobytes() == expected_models.intercept_.tobytes()
        assert len(models.tasks) == len(twin.models.tasks) or strategy == "personal"
    assert np.abs(twin.models.coef_).max() > 0
    return exchange


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_corrupted_rows_do_not_reach_a_model(strategy: Any) -> None:
    exchange = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), strategy)
    sent = exchange.up()
    replies = exchange.combine(sent, False)
    replies[2][-1][5] ^= 1
    trainer = exchange.workers[2].trainer
    before = trainer.W.copy()
    with pytest.raises(IntegrityError, match="worker 'w2' decoded other vectors"):
        exchange.down(replies)
    assert np.array_equal(trainer.W, before)


@pytest.mark.skipif(kernel_name() != "isa-l", reason="no ISA-L on this machine")
def test_short_updates_are_encoded_by_calls_that_are_ready() -> None:
    exchange = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    exchange.up()
    sides = [worker for worker in exchange.workers if isinstance(worker, CodedWorkerSide)]
    ready = [worker._encode._product._remembered for worker in sides]
    # If a coefficient is 0, the product uses structure, and does not keep arrays.
    assert sum(call is not None for call in ready) >= len(ready) // 2
    assert all(
        call.sources is worker._own for call, worker in zip(ready, sides, strict=True) if call is not None
    )
