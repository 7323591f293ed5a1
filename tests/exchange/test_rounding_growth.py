from __future__ import annotations

import numpy as np
from support.exchange import RoundExchange
from support.problems import make_partitions, make_settings

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.data import recipes
from asyncdmtl.exchange.rounding_growth import rounding_growth
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import train
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement

PARTITIONS = make_partitions(6, "squared")

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
