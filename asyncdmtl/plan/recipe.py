"""Rebuilds a plan from its recipe. Nothing in a recipe is trusted, since a peer may have sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.building import build_plan
from asyncdmtl.plan.codes.matrices import ENTRIES
from asyncdmtl.plan.limits import MOST_LAST_ROWS, MOST_NAMES, MOST_SUBPACKETS, check_size
from asyncdmtl.plan.parameters import CODED, RECIPE_VERSION, STRATEGIES, PlanParameters
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.spans import Span, is_node
from asyncdmtl.plan.units import Sum, Units, partitions_of_tasks
from asyncdmtl.plan.validation import LARGEST_WHOLE_NUMBER, check_combination, numbered_tasks


def rebuild_plan(recipe: Mapping[str, Any], digest: bytes) -> Plan:
    """The plan whose `recipe()` and `digest` these are.

    Only the digest is compared: the planner has checked that every worker can decode.

    Raises
    ------
    PlanError
        The recipe is malformed, has another version, or leads to a plan with another digest.
    """
    try:
        if recipe["version"] != RECIPE_VERSION:
            raise PlanError(f"plan recipe of version {recipe['version']!r}, this is version {RECIPE_VERSION}")
        placement = recipe_placement(recipe)
        if recipe["strategy"] not in STRATEGIES:
            raise PlanError(f"plan recipe with the unknown strategy {recipe['strategy']!r}")
        if recipe.get("matrices", "random") not in ENTRIES:
            raise PlanError(f"plan recipe with the unknown matrices {recipe['matrices']!r}")
        _check_recipe(recipe, placement)
        plan = build_plan(
            PlanParameters(
                placement=placement,
                tasks=numbered_tasks(placement, recipe["tasks"]),
                strategy=recipe["strategy"],
                subpackets=int(recipe["subpackets"]),
                uplink_rows=tuple(map(int, recipe["uplink_rows"])),
                senders=tuple(map(int, recipe["senders"])),
                seed=int(recipe["seed"]),
                silent=int(recipe["silent"]),
                helpers=tuple(map(int, recipe.get("helpers", []))),
                aggregated=tuple(map(int, recipe["aggregated"])),
                sums=tuple(Sum(*map(int, part)) for part in recipe.get("sums", [])),
                merged=int(recipe["merged"]),
                last_row=int(recipe["last_row"]),
                replaced=tuple((int(k), int(row)) for k, row in recipe["replaced"]),
                redrawn=tuple((int(k), int(number)) for k, number in recipe.get("redrawn", [])),
                matrices=recipe.get("matrices", "random"),
            )
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PlanError(f"malformed plan recipe: {error!r}") from error
    if plan.digest != digest:
        raise PlanError(f"the plan built has digest {plan.digest.hex()}, not the one announced")
    return plan


def recipe_placement(recipe: Mapping[str, Any]) -> Placement:
    """The placement in a recipe; ValueError, TypeError or PlacementError if there is none."""
    names, workers = recipe["partitions"], recipe["workers"]
    if type(names) is not list or type(workers) is not list:
        raise ValueError("partitions and workers must be lists")
    if max(len(names), len(workers)) > MOST_NAMES:
        raise ValueError(f"{len(names)} partitions and {len(workers)} workers")
    stored = [[names[whole(n, 0, len(names) - 1)] for n in indices] for indices in recipe["stored"]]
    return Placement(dict(zip(workers, stored, strict=True)), names)


def whole(value: Any, low: int, high: int) -> int:
    """Return `value`, if it is an int from `low` to `high`; else raise ValueError."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is no whole number from {low} to {high}")
    return value


def _check_recipe(recipe: Mapping[str, Any], placement: Placement) -> None:
    """Raise PlanError or ValueError, before any matrix is made, if `make_plan` makes no such plan."""
    K, N = len(placement.workers), len(placement.partitions)
    for task in recipe["tasks"]:
        whole(task, 0, N - 1)
    tasks = numbered_tasks(placement, recipe["tasks"])
    silent = whole(recipe["silent"], 0, K - 1)
    whole(recipe["seed"], 0, LARGEST_WHOLE_NUMBER)
    whole(recipe["last_row"], 0, MOST_LAST_ROWS)
    check_combination(recipe["strategy"], None, None, silent)
    units = _checked_units(recipe, placement, tasks)
    helpers = [whole(worker, 0, K - 1) for worker in recipe.get("helpers", [])]
    if helpers != sorted(set(helpers)) or len(helpers) == K:
        raise ValueError("helpers must be ascending, and some worker must want something")
    P = whole(recipe["subpackets"], 1, max(MOST_SUBPACKETS, K))
    rows = [
        whole(count, 0, len(held) // units.merged * P)
        for count, held in zip(recipe["uplink_rows"], units.held, strict=True)
    ]
    coded = recipe["strategy"] in CODED
    check_size(units, P, rows, coded=coded)
    for worker, number in recipe.get("redrawn", []):
        if recipe["strategy"] != "relay" or recipe["senders"] or not rows[whole(worker, 0, K - 1)]:
            raise ValueError(f"worker {worker} has no coded row to draw again")
        whole(number, 1, MOST_LAST_ROWS)
    blocks = len(units.holders) // units.merged
    senders = [whole(sender, 0, K - 1) for sender in recipe["senders"]]
    if silent or (recipe["strategy"] == "relay" and not senders):
        stores = [len(held) for k, held in enumerate(units.held) if k not in set(helpers)]
        missing = len(units.holders) - min(stores)
        needed = blocks if recipe["strategy"] == "central" else missing // units.merged
        if senders or sum(rows) < needed * P:
            raise ValueError(f"{sum(rows)} coded rows for {needed * P} packets")
    elif P > 1 and recipe["strategy"] != "relay":
        raise ValueError(f"{P} packets where units go up uncoded")
    elif units.merged > 1 or not _hold(units, senders) or rows != [P * senders.count(k) for k in range(K)]:
        raise ValueError("a sender must hold the vector that it sends")
    for worker, row in recipe["replaced"]:
        whole(worker, 0, K - 1)
        # Only coded rows can replace each other, and a worker without rows has no last row to replace.
        if not coded or not (recipe["strategy"] == "central" or len(units.held[worker]) < len(units.holders)):
            raise ValueError(f"worker {worker} has no row to replace")
        whole(row, 1, len(units.holders) * P)


def _checked_units(recipe: Mapping[str, Any], placement: Placement, tasks: tuple[int, ...]) -> Units:
    """The units of a recipe; ValueError unless each unit has a holder and blocks are full."""
    own = partitions_of_tasks(tasks)
    aggregated = [whole(task, 0, len(own) - 1) for task in recipe["aggregated"]]
    sums = _checked_sums(recipe, [len(partitions) for partitions in own])
    if (aggregated or sums) and recipe["strategy"] == "uncoded":
        raise ValueError(f"aggregated tasks or sums under {recipe['strategy']}")
    units = Units.of(placement, tasks, aggregated, sums=sums)
    merged = whole(recipe["merged"], 1, len(placement.partitions))
    if len(set(aggregated)) < len(aggregated) or not all(units.holders):
        raise ValueError(f"aggregated tasks {aggregated} that are stored nowhere whole, or named twice")
    covered = len(units.updates) + sum(len(own[t]) for t in aggregated) + sum(s.stop - s.start for s in sums)
    if covered != len(placement.partitions):
        raise ValueError("sums and aggregates have partitions in common")
    if merged > 1 and (recipe["strategy"] != "relay" or units.largest_merge() % merged):
        raise ValueError(f"blocks of {merged} units do not fill")
    return replace(units, merged=merged)


def _checked_sums(recipe: Mapping[str, Any], sizes: Sequence[int]) -> list[Sum]:
    """The sums of a recipe; ValueError unless they are nodes of trees over tasks of these sizes."""
    sums = []
    for part in recipe.get("sums", []):
        task, start, stop = part
        size = sizes[whole(task, 0, len(sizes) - 1)]
        span = Span(whole(start, 0, size - 1), whole(stop, start + 2, size))
        if span == (0, size) or not is_node(span, size):
            raise ValueError(f"{part} is no sum of a task of {size} partitions")
        sums.append(Sum(task, start, stop))
    return sums


def _hold(units: Units, senders: Sequence[int]) -> bool:
    """Whether each unit has a sender that holds it."""
    return all(sender in H for sender, H in zip(senders, units.holders, strict=True))
