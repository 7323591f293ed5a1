"""The form of plans on the wire: a recipe in plain msgpack types, and a digest that both ends compare.

The recipe of a plan over GF(2^8) has a seed, from which both ends draw the same matrices. The recipe of a
linear plan has the matrices themselves, because LAPACK's last digits differ between machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.linear.planning import MOST_LINEAR_SUBPACKETS
from asyncdmtl.plan.parameters import RECIPE_VERSION
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.recipe import rebuild_plan, recipe_placement, whole

AnyPlan = Plan | LinearPlan


def recipe_and_digest(plan: AnyPlan) -> tuple[dict[str, Any], bytes]:
    """The arguments of `rebuild`; matrices of a linear plan are little-endian float64 in bytes."""
    if isinstance(plan, Plan):
        return plan.recipe(), plan.digest
    recipe: dict[str, Any] = {
        "version": RECIPE_VERSION,
        "strategy": "linear",
        "workers": list(plan.placement.workers),
        "partitions": list(plan.placement.partitions),
        "stored": [list(stored) for stored in plan.placement.stored],
        "silent": plan.silent,
        "subpackets": plan.subpackets,
        "target": _pack(plan.target),
        "uplink": [_pack(matrix) for matrix in plan.uplink_matrices],
        "downlink": _pack(plan.downlink_matrix),
        "missing_ranks": list(plan.missing_ranks),
        "bounds": [str(plan.uplink_bound), str(plan.fractional_bound)],
        "bound_complete": plan.bound_complete,
        "condition": float(plan.condition),
    }
    if plan.solved is not plan.target:
        recipe["solved"] = _pack(plan.solved)
    return recipe, _digest(recipe)


def rebuild(recipe: Mapping[str, Any], digest: bytes) -> AnyPlan:
    """The plan that `recipe` and `digest` describe.

    Raises
    ------
    PlanError
        The recipe is malformed, or has another version or digest.
    """
    if not isinstance(recipe, Mapping):
        raise PlanError("a plan recipe is a map")
    if recipe.get("strategy") != "linear":
        return rebuild_plan(recipe, digest)
    if recipe.get("version") != RECIPE_VERSION or _digest(recipe) != digest:
        raise PlanError("linear plan of another version, or with another digest than announced")
    try:
        placement = recipe_placement(recipe)
        P = whole(recipe["subpackets"], 1, MOST_LINEAR_SUBPACKETS)
        target = _unpack(recipe["target"], columns=len(placement.partitions))
        uplink_bound, fractional_bound = map(_fraction, recipe["bounds"])
        ranks = tuple(whole(rank, 0, len(target)) for rank in recipe["missing_ranks"])
        solved = target
        if "solved" in recipe:
            solved = _unpack(recipe["solved"], columns=len(placement.partitions))
        downlink = _unpack(recipe["downlink"], columns=len(solved))
        if len(ranks) != len(placement.workers) or not all(0 <= rank <= len(downlink) for rank in ranks):
            raise ValueError(f"missing ranks {ranks}")
        return LinearPlan(
            placement=placement,
            target=target,
            solved=solved,
            silent=whole(recipe["silent"], 0, len(placement.workers)),
            subpackets=P,
            uplink_matrices=tuple(
                _unpack(packed, columns=len(held) * P)
                for packed, held in zip(recipe["uplink"], placement.stored, strict=True)
            ),
            uplink_bound=uplink_bound,
            fractional_bound=fractional_bound,
            bound_complete=bool(recipe["bound_complete"]),
            downlink_matrix=downlink,
            missing_ranks=ranks,
            condition=float(recipe["condition"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PlanError(f"malformed plan recipe: {error!r}") from error


def _pack(matrix: NDArray[np.float64]) -> list[Any]:
    return [matrix.shape[0], matrix.astype("<f8").tobytes()]


def _unpack(packed: Any, columns: int) -> NDArray[np.float64]:
    rows, content = packed
    matrix = np.frombuffer(content, dtype="<f8").reshape(int(rows), columns).astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("a matrix must be finite")
    return matrix


def _fraction(text: Any) -> Fraction:
    # Exponents are refused: reading 1e999999999 would take for ever.
    if type(text) is not str or len(text) > 1000 or not text.replace("/", "", 1).isdecimal():
        raise ValueError(f"{text!r} is no fraction")
    return Fraction(text)


def _digest(recipe: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(
        repr(sorted(recipe.items())).encode(), digest_size=16, usedforsecurity=False
    ).digest()
