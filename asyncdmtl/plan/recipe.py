"""Building a plan again from its recipe. Nothing in a recipe is trusted: a peer may have sent it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.building import build_plan
from asyncdmtl.plan.limits import MOST_NAMES, MOST_SUBPACKETS, check_size
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import RECIPE_VERSION, STRATEGIES, Plan
from asyncdmtl.plan.validation import LARGEST_WHOLE_NUMBER, check_combination, numbered_tasks


def rebuild_plan(recipe: Mapping[str, Any], digest: bytes) -> Plan:
    """The plan whose `recipe()` and `digest` these are.

    The digest alone is compared: the plan's maker has checked that every worker can decode.

    Raises
    ------
    PlanError
        The recipe is malformed, of another version, or gives a plan with another digest.
    """
    try:
        if recipe["version"] != RECIPE_VERSION:
            raise PlanError(f"plan recipe of version {recipe['version']!r}, this is version {RECIPE_VERSION}")
        placement = recipe_placement(recipe)
        if recipe["strategy"] not in STRATEGIES:
            raise PlanError(f"plan recipe with the unknown strategy {recipe['strategy']!r}")
        _check_recipe(recipe, placement)
        owners = numbered_tasks(placement, recipe["tasks"])
        plan = build_plan(
            placement,
            owners,
            recipe["strategy"],
            int(recipe["subpackets"]),
            tuple(map(int, recipe["uplink_rows"])),
            tuple(map(int, recipe["senders"])),
            int(recipe["seed"]),
            int(recipe["silent"]),
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
    """Raise PlanError or ValueError, before any matrix is made, where `make_plan` makes no such plan."""
    P = whole(recipe["subpackets"], 1, max(MOST_SUBPACKETS, len(placement.workers)))
    rows = [
        whole(count, 0, len(stored) * P)
        for count, stored in zip(recipe["uplink_rows"], placement.stored, strict=True)
    ]
    whole(recipe["seed"], 0, LARGEST_WHOLE_NUMBER)
    silent = whole(recipe["silent"], 0, len(placement.workers) - 1)
    for task in recipe["tasks"]:
        whole(task, 0, len(placement.partitions) - 1)
    check_combination(recipe["strategy"], None, None, silent)
    check_size(placement, P, rows)
    senders = [whole(sender, 0, len(placement.workers) - 1) for sender in recipe["senders"]]
    if recipe["strategy"] == "relay" or silent:
        needed = (
            len(placement.partitions)
            if silent
            else len(placement.partitions) - min(map(len, placement.stored))
        )
        if senders or sum(rows) < needed * P:
            raise ValueError(f"{sum(rows)} coded rows for {needed * P} packets")
    elif P > 1 or not _hold(placement, senders) or Counter(senders) != Counter(dict(enumerate(rows))):
        raise ValueError("a sender must store the update that it sends")


def _hold(placement: Placement, senders: Sequence[int]) -> bool:
    """Whether each partition has a sender that stores it."""
    return all(sender in H for sender, H in zip(senders, placement.holders, strict=True))
