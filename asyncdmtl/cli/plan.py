"""`asyncdmtl plan`: what a placement allows, what is planned for it, and why it cannot be less."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from asyncdmtl.cli.command import command
from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan.compare import NETWORKS, Candidate, certificate_in_words, cheapest, compare
from asyncdmtl.plan.linear.plan import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import PlanRequest, read_request
from asyncdmtl.plan.plan import STRATEGIES, Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.bounds import certificate_value
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.validation import rational
from asyncdmtl.report.pictures import plot_plan
from asyncdmtl.report.run_report import make_console

Explanation = dict[str, Any]

# The integer program of linear targets takes long for more; --combinations asks for it all the same.
LINEAR_PARTITIONS = 60


@command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--strategy",
    type=click.Choice(("auto", *STRATEGIES)),
    default="auto",
    help="What to plan; auto: the cheapest on the network.",
)
@click.option(
    "--network", type=click.Choice(NETWORKS), default="unicast", help="What the downlink travels on."
)
@click.option(
    "--max-overhead",
    default="0",
    metavar="FRACTION",
    callback=lambda context, parameter, text: _fraction(text),
    help="Uplink load that may be given away for fewer packets per vector: 1/50 or 0.02.",
)
@click.option(
    "--minimise",
    type=click.Choice(("load", "cost", "makespan")),
    default="load",
    help="The load, the cost (table prices in FILE), or the time of a relay's uplink (table speeds).",
)
@click.option(
    "--combinations",
    type=int,
    show_default="the mean update of each task",
    help="Linear targets: so many generic combinations of the updates are wanted.",
)
@click.option("--silent", type=int, default=0, help="Workers that may stay silent (central and linear).")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the random matrices.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write the plan here: recipe and digest as JSON."
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
    combinations: int | None,
    silent: int,
    seed: int,
    output: Path | None,
    plot_file: Path | None,
    format: str,
    **_: object,
) -> None:
    """Plan for the placement in FILE, and explain the plan.

    FILE is TOML or JSON: a table `workers` of lists of partitions; optionally a table `tasks` of lists of
    partitions, and tables `prices` and `speeds` of a number for each worker.
    """
    request = read_request(file)
    weights = _weights(request, minimise)
    candidates = list(
        compare(request.placement, request.tasks, max_overhead=max_overhead, silent=silent, **weights)
    )
    if combinations is not None or len(request.placement.partitions) <= LINEAR_PARTITIONS:
        candidates.append(linear_candidate(request, combinations, silent, seed, weights.get("prices")))
    exact = [candidate for candidate in candidates if candidate.strategy in STRATEGIES]
    if minimise == "makespan" and strategy == "auto":
        strategy = "relay"
    chosen: Any = cheapest(exact, network).strategy if strategy == "auto" else strategy
    explanation = explain(request, candidates, network, chosen, weights)
    try:
        plan = make_plan(
            request.placement,
            chosen,
            tasks=request.tasks,
            max_overhead=max_overhead,
            silent=silent,
            seed=seed,
            **weights,
        )
    except PlanError:
        # What is known without matrices is worth showing all the same.
        _print(explanation, format)
        raise
    explanation |= describe_plan(plan)
    if output is not None:
        _write(output, json.dumps({"recipe": plan.recipe(), "digest": plan.digest.hex()}) + "\n")
    if plot_file is not None:
        plot_plan(explanation, plan.uplink_matrix != 0, plot_file)
    _print(explanation, format)


def linear_candidate(
    request: PlanRequest,
    combinations: int | None = None,
    silent: int = 0,
    seed: int = 0,
    prices: Sequence[Fraction] | None = None,
) -> Candidate:
    """Loads of the linear strategy, where updates are combined linearly and only combinations are wanted.

    Without `combinations`, the target is the mean update of every task; else so many generic combinations.
    """
    N = len(request.placement.partitions)
    if combinations is None:
        target = np.zeros((len(request.task_names), N))
        target[list(request.tasks), range(N)] = 1.0
        wanted = "the mean update of each task"
    else:
        if combinations < 1:
            raise UsageError("--combinations", "must be at least 1", combinations)
        target = np.random.default_rng(seed).standard_normal((combinations, N))
        wanted = f"{combinations} generic combinations of the updates"
    plan = make_linear_plan(request.placement, target, silent=silent, seed=seed)
    costs = prices or [Fraction(1)] * len(request.placement.workers)
    return Candidate(
        "linear",
        plan.uplink_load,
        plan.uplink_bound,
        plan.downlink_load,
        plan.downlink_bound,
        Fraction(sum(plan.missing_ranks)),
        plan.subpackets,
        f"wanted: {wanted}, over the reals; gap to the bound {plan.gap}, worst condition number "
        f"{plan.condition:.3g}.",
        sum((c * R for c, R in zip(costs, plan.dimensions, strict=True)), Fraction(0)),
        sum((c * rank for c, rank in zip(costs, plan.missing_ranks, strict=True)), Fraction(0)),
    )


def explain(
    request: PlanRequest,
    candidates: list[Candidate],
    network: Any,
    chosen: str,
    weights: dict[str, Any],
) -> Explanation:
    """What follows from a placement without matrices, in plain JSON types, fractions as strings."""
    placement = request.placement
    optimum = uplink_optimum(placement)
    many = len(optimum.certificate) > 1
    ranked = sorted(candidates, key=lambda candidate: candidate.cost(network))
    return {
        "placement": placement.as_dict(),
        "partitions": list(placement.partitions),
        "tasks": {
            name: [
                part for part, owner in zip(placement.partitions, request.tasks, strict=True) if owner == t
            ]
            for t, name in enumerate(request.task_names)
        },
        "network": network,
        "strategy": chosen,
        "priced": "prices" in weights,
        "certificate": [[placement.workers[k] for k in block] for block in optimum.certificate],
        "certificate_value": str(certificate_value(placement, optimum.certificate)) if many else "0",
        "certificate_in_words": certificate_in_words(placement, optimum.certificate),
        **_weighted_bound(placement, weights),
        "strategies": {
            candidate.strategy: {
                "uplink_load": str(candidate.uplink_load),
                "uplink_bound": str(candidate.uplink_bound),
                "downlink_load": str(candidate.downlink_load),
                "downlink_bound": str(candidate.downlink_bound),
                "unicast_load": str(candidate.unicast_load),
                "subpackets": candidate.subpackets,
                "overhead": str(candidate.overhead),
                "cost": str(candidate.cost(network)),
                "limits": candidate.limits,
            }
            for candidate in candidates
        },
        "cheapest": [candidate.strategy for candidate in ranked],
    }


def describe_plan(plan: Plan) -> Explanation:
    """What only the plan itself can tell."""
    rows = zip(plan.placement.workers, plan.uplink_rows, strict=True)
    return {
        "uplink_load": str(plan.uplink_load),
        "uplink_bound": str(plan.uplink_bound),
        "downlink_load": str(plan.downlink_load),
        "downlink_bound": str(plan.downlink_bound),
        "unicast_load": str(plan.wire_downlink_load),
        "subpackets": plan.subpackets,
        "uplink_loads": {worker: str(Fraction(count, plan.subpackets)) for worker, count in rows},
        "seed": plan.seed,
        "digest": plan.digest.hex(),
    }


def _weighted_bound(placement: Placement, weights: dict[str, Any]) -> Explanation:
    """The least cost or time of a relay's uplink, and the cuts that prove it."""
    if "prices" in weights:
        cheap = cheapest_rates(placement, weights["prices"])
        proof = [{"workers": _named(placement, cut), "multiplier": str(y)} for cut, y in cheap.certificate]
        return {"cost_bound": str(cheap.cost), "cost_certificate": proof}
    if "speeds" in weights:
        fast = fastest_rates(placement, weights["speeds"])
        return {"time_bound": str(fast.time), "time_certificate": _named(placement, fast.certificate)}
    return {}


def _named(placement: Placement, workers: Sequence[int]) -> list[str]:
    return [placement.workers[k] for k in workers]


def show(explanation: Explanation, console: Console | None = None) -> None:
    """Print an explanation as a person wants to see it."""
    console = console or make_console()
    partitions = explanation["partitions"]
    table = Table(title=f"Placement: {len(explanation['placement'])} workers, {len(partitions)} partitions")
    for heading in ("worker", "stores", "uplink"):
        table.add_column(heading, justify="right" if heading == "uplink" else "left")
    for worker, stored in explanation["placement"].items():
        more = f" and {len(stored) - _SHOWN} more" if len(stored) > _SHOWN else ""
        shown = " ".join(stored[:_SHOWN]) + more
        table.add_row(
            worker,
            f"{len(stored)}: {shown}" if stored else "nothing",
            explanation.get("uplink_loads", {}).get(worker, "-"),
        )
    console.print(table)
    console.print(_strategy_table(explanation))
    for strategy, row in explanation["strategies"].items():
        console.print(f"{strategy}: {row['limits']}")
    if "cost_bound" in explanation:
        console.print(f"A relay's uplink costs at least {explanation['cost_bound']}.")
    if "time_bound" in explanation:
        slowest = ", ".join(explanation["time_certificate"])
        console.print(
            f"A relay's uplink takes at least {explanation['time_bound']}: what only {slowest} hold."
        )
    console.print(_verdict(explanation))


def _verdict(explanation: Explanation) -> str:
    """The choice, and by how much it is the cheapest."""
    chosen, rivals = explanation["strategy"], explanation["strategies"]
    if chosen not in rivals:
        return f"Planned: {chosen}."
    cost = Fraction(rivals[chosen]["cost"])
    unit = "in cost" if explanation["priced"] else "vectors"
    words = [f"Planned: {chosen}, {cost} {unit} a round by {explanation['network']}"]
    others = [name for name in explanation["cheapest"] if name != chosen]
    for name in dict.fromkeys([*others[:1], *(name for name in others if name == "uncoded")]):
        other = Fraction(rivals[name]["cost"])
        if other:
            share = float(1 - cost / other)
            words.append(f"{abs(share):.0%} {'less' if share >= 0 else 'more'} than {name}")
    return ", ".join(words) + "."


_SHOWN = 12


def _strategy_table(explanation: Explanation) -> Table:
    table = Table(title="Vectors per round: up, down (each row once), copies (of what goes down, by unicast)")
    headings = ("up", "bound", "down", "bound", "copies", "packets", "cost")
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for strategy, row in explanation["strategies"].items():
        table.add_row(
            f"→ {strategy}" if strategy == explanation["strategy"] else f"  {strategy}",
            row["uplink_load"],
            row["uplink_bound"],
            row["downlink_load"],
            row["downlink_bound"],
            row["unicast_load"],
            str(row["subpackets"]),
            row["cost"],
        )
    return table


def _weights(request: PlanRequest, minimise: str) -> dict[str, Any]:
    """The argument that says what is minimised, if not the load."""
    if minimise == "load":
        return {}
    key, values = ("prices", request.prices) if minimise == "cost" else ("speeds", request.speeds)
    if values is None:
        raise UsageError(f"--minimise {minimise}", f"needs a table {key} in FILE", None)
    return {key: values}


def _print(explanation: Explanation, format: str) -> None:
    if format == "json":
        print(json.dumps(explanation))
    else:
        show(explanation)


def _fraction(text: str) -> Fraction:
    return rational("--max-overhead", text)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--output", f"must be writable ({error.strerror})", str(path)) from error
