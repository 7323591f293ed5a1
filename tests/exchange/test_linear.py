from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from support.exchange import RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.errors import CodingError, IntegrityError, RemoteProtocolError
from asyncdmtl.exchange.states import RoundedStates
from asyncdmtl.learning.training import train

SETTINGS = make_settings(dtype="float64", rounds=4)
PARTITIONS = make_partitions(6, "squared")


def exchange() -> RoundExchange:
    return RoundExchange(HOMOGENEOUS, PARTITIONS, SETTINGS, "linear")


def test_every_worker_ends_with_the_twins_models_up_to_rounding() -> None:
    made, twin = exchange(), train(PARTITIONS, SETTINGS)
    with single_threaded():
        for round_, expected in enumerate(twin.objectives):
            sent = made.up()
            assert made.server.convergence(sent).objective == pytest.approx(float(expected), rel=1e-9)
            made.down(made.combine(sent, round_ + 1 == SETTINGS.rounds))
    for worker in made.workers:
        assert np.allclose(worker.models().coef_, twin.models.coef_, rtol=1e-9)
    told = {str(k): worker.final_check() for k, worker in enumerate(made.workers)}
    majority = RoundedStates(made.problem).majority(told)
    assert majority is not None
    assert majority.odd == ()


def test_rows_come_in_one_range_and_count_as_the_plan_says() -> None:
    made = exchange()
    made.combine(made.up(), False)
    server = made.server
    assert len(server.ranges) == 1
    assert server.block(0).nbytes == server.broadcast_bytes
    for k, worker in enumerate(made.workers):
        count, width = server.uplink_range(k, 0)
        assert count * width == server.uplink_bytes(k)
        assert worker.received_range(0) == worker.received_bytes == server.downlink_bytes(k)
        assert worker.side_information(0).shape == (0, worker.received_bytes)


def test_corrupted_rows_are_noticed_on_both_ways() -> None:
    made = exchange()
    sent = made.up()
    rows = sent[2].rows[0].copy()
    rows.reshape(-1)[3] ^= 1
    with pytest.raises(IntegrityError, match="rows of worker 'w2' were corrupted") as caught:
        made.server.agree([*sent[:2], replace(sent[2], rows=(rows,)), *sent[3:]])
    assert caught.value.workers == ("w2",)
    replies = made.combine(sent, False)
    replies[1][0][5] ^= 1
    before = made.workers[1].trainer.W.copy()
    with pytest.raises(IntegrityError, match="worker 'w1' received other rows"):
        made.down(replies)
    assert np.array_equal(made.workers[1].trainer.W, before)


def test_other_sizes_than_the_plan_says_are_refused() -> None:
    made = exchange()
    sent = made.up()[0]
    for wrong in (replace(sent, size=sent.size + 1), replace(sent, losses=())):
        with pytest.raises(RemoteProtocolError, match="other numbers of rows or losses"):
            made.server.check(0, wrong)
    with pytest.raises(CodingError, match="received 3 bytes of rows"):
        made.workers[0].receive(0, np.zeros(3, np.uint8))


def test_one_worker_does_not_decide_about_progress() -> None:
    made = exchange()
    sent = made.up()
    true = made.server.convergence(sent)
    lies: list[dict[str, Any]] = [{"residual": 0.0}, {"penalty": 1e300}, {"losses": (1e300,) * 3}]
    for k, wrong in product(range(len(sent)), lies):
        bent = [replace(upload, **wrong) if i == k else upload for i, upload in enumerate(sent)]
        found = made.server.convergence(bent)
        assert found.objective == pytest.approx(true.objective, rel=1e-9)
        assert found.residual == true.residual
    # Two of the three that tell the penalty can forge it.
    two = [replace(upload, penalty=7.0) if i < 2 else upload for i, upload in enumerate(sent)]
    assert made.server.convergence(two).objective > true.objective + 1.0
