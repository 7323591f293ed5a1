"""The parameters of a plan, which determine its matrices and make up its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, get_args

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.units import Sum, Units

Strategy = Literal["relay", "central", "personal", "uncoded"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# The strategies whose downlink is coded.
CODED: tuple[Strategy, ...] = ("relay", "central")

# The strategies that a run may ask for. `auto` chooses among the exact ones; `linear` is exact up to
# rounding.
CHOICES = ("auto", *STRATEGIES, "linear")

# The strategies of a run that tolerate silent workers.
TOLERANT = ("auto", "relay", "central", "linear")

# Version of a recipe's format: a peer refuses a recipe of another version.
RECIPE_VERSION = 2


@dataclass(frozen=True, eq=False)
class PlanParameters:
    """The parameters from which both ends build the same matrices.

    `K`, `N`, `T` are the numbers of workers, partitions and tasks.

    Attributes
    ----------
    placement : Placement
    tasks : tuple of int, length N
        The task that owns each partition.
    strategy : "relay", "central", "personal" or "uncoded"
        Where updates are aggregated, and what is coded (docs/theory.md, section 2).
    aggregated : tuple of int
        The tasks whose aggregates workers code, instead of updates (`asyncdmtl.plan.units`).
    sums : tuple of Sum
        The sums that workers code in place of the updates of some consecutive partitions of a task.
    merged : int
        Vectors in a block: units with equal holders that are coded as one longer vector; usually 1.
    subpackets : int
        `P`: the packets that every block is cut into. A packet holds `merged / P` vectors.
    uplink_rows : tuple of int, length K
        Packets that each worker sends: `R_k·P / merged`.
    senders : tuple of int
        The worker that sends each unit, if units go up uncoded; else empty. Under `relay` they do below a
        relay (`asyncdmtl.plan.hierarchy.below`).
    silent : int
        The number of workers that may stay silent (under `central` and `relay`).
    helpers : tuple of int
        The workers that want nothing, ascending: they send rows, but receive none.
    seed : int
        The seed of the random entries of both matrices.
    last_row : int
        The number of the draw of the last downlink row: 0 if the first draw lets every worker decode.
    replaced : tuple of (worker, row) pairs
        Workers whose last downlink row is replaced by a later one, because they cannot decode otherwise.
    redrawn : tuple of (worker, number) pairs
        Workers whose last uplink row is another draw, of this number, because others cannot decode otherwise.
    matrices : str
        A name in `codes.matrices.ENTRIES`: how entries of both matrices are drawn.
    """

    placement: Placement
    tasks: tuple[int, ...]
    strategy: Strategy
    subpackets: int
    uplink_rows: tuple[int, ...]
    seed: int
    senders: tuple[int, ...] = ()
    silent: int = 0
    aggregated: tuple[int, ...] = ()
    merged: int = 1
    last_row: int = 0
    replaced: tuple[tuple[int, int], ...] = ()
    helpers: tuple[int, ...] = ()
    redrawn: tuple[tuple[int, int], ...] = ()
    sums: tuple[Sum, ...] = ()
    matrices: str = "random"

    @cached_property
    def units(self) -> Units:
        """The vectors that workers code, with their holders."""
        return Units.of(self.placement, self.tasks, self.aggregated, self.merged, self.sums)

    @property
    def packet_load(self) -> Fraction:
        """The load of one packet: the share of a vector that it holds."""
        return Fraction(self.merged, self.subpackets)

    def recipe(self) -> dict[str, Any]:
        """The recipe for `asyncdmtl.plan.recipe.rebuild_plan`, in plain msgpack and JSON types."""
        return {
            "version": RECIPE_VERSION,
            "strategy": self.strategy,
            "workers": list(self.placement.workers),
            "partitions": list(self.placement.partitions),
            "stored": [list(stored) for stored in self.placement.stored],
            "tasks": list(self.tasks),
            "aggregated": list(self.aggregated),
            "merged": self.merged,
            "subpackets": self.subpackets,
            "uplink_rows": list(self.uplink_rows),
            "senders": list(self.senders),
            "seed": self.seed,
            "silent": self.silent,
            "last_row": self.last_row,
            "replaced": [list(pair) for pair in self.replaced],
            # Most plans have no sums, helpers, redrawn rows or other matrices, and omit these keys.
            **({"sums": [list(part) for part in self.sums]} if self.sums else {}),
            **({"helpers": list(self.helpers)} if self.helpers else {}),
            **({"redrawn": [list(pair) for pair in self.redrawn]} if self.redrawn else {}),
            **({"matrices": self.matrices} if self.matrices != "random" else {}),
        }
