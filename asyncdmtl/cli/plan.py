"""`asyncdmtl plan`: the loads that a placement allows, the plan for it, and the proof of its bounds."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command
from asyncdmtl.cli.link_options import max_overhead_option
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.plan.compare import NETWORKS, cheapest, compare
from asyncdmtl.plan.delay.queueing import Stream
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement_file import PlanRequest, read_request, weights_of
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.units import UnitKind
from asyncdmtl.report.delay_report import predicted_delays
from asyncdmtl.report.downlink_report import planned_downlinks
from asyncdmtl.report.hierarchy_report import report_hierarchy
from asyncdmtl.report.pictures import check_picture
from asyncdmtl.report.plan_costs import predicted_costs
from asyncdmtl.report.plan_pictures import plot_plan
from asyncdmtl.report.plan_report import (
    PlanReport,
    linear_candidate,
    report_plan,
    report_strategies,
    report_times,
)
from asyncdmtl.report.plan_tables import show_plan
from asyncdmtl.report.update_report import predicted_updates

# The most partitions for which the linear strategy is shown without --combinations. With more, its integer
# program takes long.
LINEAR_PARTITIONS = 60


@command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--strategy",
    type=click.Choice(("auto", *STRATEGIES)),
    default="auto",
    help="The strategy to plan; auto: the cheapest on the network.",
)
@click.option("--network", type=click.Choice(NETWORKS), default="unicast", help="How the downlink travels.")
@max_overhead_option
@click.option(
    "--minimise",
    type=click.Choice(("load", "cost", "makespan")),
    default="load",
    help="Minimise the load, the cost (table prices in FILE) or the time of a relay's uplink (speeds).",
)
@click.option(
    "--aggregate",
    type=click.Choice(tuple(AGGREGATES)),
    default="mean",
    help="The aggregate of a task's updates; for the mean, sums of some of them may travel.",
)
@click.option(
    "--combinations",
    type=int,
    show_default="the mean update of each task",
    help="For linear: the number of generic combinations of the updates that every worker wants.",
)
@click.option(
    "--features",
    type=click.IntRange(1),
    help="Show, for rows of so many features, what each kind of update is predicted to cost to a relative "
    "accuracy of 1e-6.",
)
@click.option(
    "--loss", type=click.Choice(tuple(LOSSES)), default="squared", help="The loss of a row, for --features."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="Show, with --features, the bytes of so many rounds by strategy (float64, with an intercept). With "
    "--arrivals: the rounds of a job.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.0, min_open=True),
    metavar="MBIT/S",
    help="Show, with --rounds, the seconds that the server's link of this rate takes for the payload.",
)
@click.option(
    "--arrivals",
    type=click.FloatRange(0.0, min_open=True),
    metavar="RATE",
    help="Show the predicted delay of a stream of jobs, of which so many arrive in the unit of time of the "
    "table speeds in FILE: for equal shares of the uplink, shares by speed, these with silent workers "
    "(--silent, else 1), and the bound of the ideal.",
)
@click.option(
    "--variation",
    type=click.FloatRange(0.0, 1.0),
    default=0.5,
    metavar="SHARE",
    help="The coefficient of variation of a worker's time in a round, for --arrivals.",
)
@click.option(
    "--silent", type=int, default=0, help="Workers that may stay silent (central, relay and linear)."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Decides the random matrices.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the plan here as JSON: how to make it again, and its digest.",
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw placement, matrix and loads here."
)
def main(
    file: Path,
    strategy: str,
    network: Any,
    max_overhead: Fraction,
    minimise: str,
    aggregate: str,
    combinations: int | None,
    features: int | None,
    loss: str,
    rounds: int | None,
    rate: float | None,
    arrivals: float | None,
    variation: float,
    silent: int,
    seed: int,
    output: Path | None,
    plot_file: Path | None,
    format: str,
    **_: object,
) -> None:
    """Plan for the placement in FILE, and explain the plan.

    FILE is TOML or JSON: a table `workers` of lists of partitions; optionally a table `tasks` of lists of
    partitions, tables `prices` and `speeds` of a number for each worker, and a table `wants` in which
    WORKER = "none" says that a worker only helps and wants no models, and "own" that it wants those of the
    tasks that it stores data of. A table `relays` of lists of workers and relays names those behind each
    relay; the tables `prices` and `speeds` then have numbers for relays, too.
    """
    check_outputs({"--output": output, "--plot": plot_file})
    check_picture(plot_file)
    _check_needs(rounds, features, rate, arrivals)
    request = read_request(file)
    _check_request(request, silent, combinations)
    weights = weights_of(request, minimise)
    wishes = {"max_overhead": max_overhead, "silent": silent, "wants": request.wants, **weights}
    units: UnitKind = "sums" if aggregate == "mean" else "tasks"
    candidates = list(compare(request.placement, request.tasks, units=units, **wishes))
    own = "own" in (request.wants or ())
    if combinations is not None or (not own and len(request.placement.partitions) <= LINEAR_PARTITIONS):
        candidates.append(linear_candidate(request, combinations, silent, seed, weights.get("prices")))
    exact = [candidate for candidate in candidates if candidate.strategy in STRATEGIES]
    wanted = "relay" if minimise == "makespan" and strategy == "auto" else strategy
    chosen: Any = cheapest(exact, network).strategy if wanted == "auto" else wanted
    report = report_strategies(request, candidates, network, chosen, weights, units)
    possible = [c for c in exact if wanted in ("auto", c.strategy)]
    if possible and request.topology is None and not silent:
        report["downlinks"] = planned_downlinks(request, possible, units)
    if request.topology is not None:
        report["hierarchy"] = report_hierarchy(
            request, exact, network, strategy, minimise=minimise, max_overhead=max_overhead
        )
    if features is not None and rounds is not None:
        bits = None if rate is None else rate * 1e6
        report["costs"] = predicted_costs(report["strategies"], network, features + 1, rounds, bits)
    if arrivals is not None:
        report["delays"] = predicted_delays(request, Stream(arrivals, rounds or 1, variation), silent)
    try:
        plan = make_plan(request.placement, chosen, tasks=request.tasks, units=units, seed=seed, **wishes)
    except PlanError:
        # Bounds and loads follow without matrices, so they are shown even if there is no plan.
        _print(report, format)
        raise
    report |= report_plan(plan) | report_times(request, plan)
    if features is not None:
        report["updates"] = predicted_updates(request, plan, features, loss)
    if output is not None:
        _write(output, json.dumps({"recipe": plan.recipe(), "digest": plan.digest.hex()}) + "\n")
    if plot_file is not None:
        plot_plan(report, plan.uplink_matrix != 0, plot_file, file.name)
    _print(report, format)


def _check_needs(
    rounds: int | None, features: int | None, rate: float | None, arrivals: float | None
) -> None:
    """UsageError if an option is given without one that it needs."""
    if rounds is not None and features is None and arrivals is None:
        raise UsageError("--rounds", "needs --features, the number of columns, or --arrivals", rounds)
    if rate is not None and (rounds is None or features is None):
        raise UsageError("--rate", "needs --rounds and --features", rate)


def _check_request(request: PlanRequest, silent: int, combinations: int | None) -> None:
    """UsageError if an option does not suit what FILE says."""
    if silent and request.topology is not None:
        raise UsageError("--silent", "cannot be given where FILE has relays", silent)
    if combinations is not None and "own" in (request.wants or ()):
        raise UsageError("--combinations", "cannot be given where workers want own", combinations)


def _print(report: PlanReport, format: str) -> None:
    if format == "json":
        print(json.dumps(report))
    else:
        show_plan(report)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--output", f"must be writable ({error.strerror})", str(path)) from error
