from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.exchange import RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.data import recipes
from asyncdmtl.errors import CodingError, IntegrityError
from asyncdmtl.exchange.linear import rounding_growth
from asyncdmtl.exchange.states import RoundedStates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import train
from asyncdmtl.plan.linear.plan import LinearPlan, make_linear_plan
from asyncdmtl.plan.placement import Placement

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


# With the first plan of this placement, differences between workers grow fourfold in every round.
UNSTEADY = Placement(
    {"w0": ["p0", "p3", "p4"], "w1": ["p1", "p2", "p5"], "w2": ["p2", "p3", "p5"]},
    [f"p{n}" for n in range(6)],
)


def test_rounding_errors_do_not_grow_from_round_to_round() -> None:
    settings = make_settings(dtype="float64", rounds=60, accelerated=False)
    problem = Problem(settings, [part.info(settings) for part in PARTITIONS])
    first = make_linear_plan(UNSTEADY, problem.linear_target, at_server=False)
    assert rounding_growth(first, problem) > 3.0
    made = RoundExchange(UNSTEADY, PARTITIONS, settings, "linear")
    assert isinstance(made.plan, LinearPlan)
    assert rounding_growth(made.plan, problem) < 1.3
    with single_threaded():
        for round_ in range(60):
            made.down(made.combine(made.up(), round_ == 59))
    twin = train(PARTITIONS, settings).models
    for worker in made.workers:
        assert np.allclose(worker.models().coef_, twin.coef_, rtol=0.0, atol=1e-11)


# With the first plan of this placement, differences between workers grow by half in every round under a
# coupling, though not without one.
MIXED = Placement(
    {
        "w0": ["p0", "p2", "p3", "p4", "p5"],
        "w1": ["p0", "p1", "p3", "p4"],
        "w2": ["p0", "p1", "p2", "p4", "p5"],
        "w3": ["p1", "p2", "p3", "p5"],
    },
    [f"p{n}" for n in range(6)],
)


def test_rounding_errors_do_not_grow_where_a_coupling_mixes_those_of_tasks() -> None:
    partitions = recipes.load("synthetic:tasks=3,rows=12,features=20,parts=2,test_rows=0", seed=0).partitions
    settings = make_settings(rounds=60, strength=0.54, intercept="none", accelerated=False)
    made = RoundExchange(MIXED, list(partitions), settings, "linear")
    with single_threaded():
        for round_ in range(60):
            made.down(made.combine(made.up(), round_ == 59))
    twin = train(partitions, settings).models
    for worker in made.workers:
        assert np.allclose(worker.models().coef_, twin.coef_, rtol=0.0, atol=1e-4)


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
        with pytest.raises(CodingError, match="other numbers of rows or losses"):
            made.server.check(0, wrong)
    with pytest.raises(CodingError, match="received 3 bytes of rows"):
        made.workers[0].receive(0, np.zeros(3, np.uint8))


def test_one_worker_does_not_decide_about_progress() -> None:
    made = exchange()
    sent = made.up()
    true = made.server.convergence(sent)
    lies: list[dict[str, Any]] = [{"residual": 0.0}, {"penalty": 1e300}, {"losses": (1e300,) * 3}]
    for k, wrong in enumerate(lies):
        bent = [replace(upload, **wrong) if i == k else upload for i, upload in enumerate(sent)]
        found = made.server.convergence(bent)
        assert found.objective == pytest.approx(true.objective, rel=1e-9)
        assert found.residual == true.residual
    # Two of the three that tell the penalty can forge it.
    two = [replace(upload, penalty=7.0) if i < 2 else upload for i, upload in enumerate(sent)]
    assert made.server.convergence(two).objective > true.objective + 1.0
