"""Repair of a broadcast: further rows beyond the downlink matrix, and lost rows computed from them.

The first rows of a broadcast are those of the downlink matrix. All further rows are *fresh*: random
combinations of these. A fresh row replaces any lost one (docs/theory.md, section 4: any `N − |M_k|`
independent rows decode). Its coefficients follow from the plan's seed and its number, so that only the number
travels.

A worker that lost rows first solves for them, and then decodes as if no row had been lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError
from asyncdmtl.field import gf256, linalg
from asyncdmtl.plan.codes.matrices import ColumnDelivery, Delivery, random_matrix
from asyncdmtl.plan.plan import Plan

# The most solutions that a worker keeps, one for each set of lost and fresh rows. The least recently used one
# is dropped first.
MOST_SOLUTIONS = 1 << 8


class FreshRows:
    """Combinations of the `rows` rows of a broadcast, numbered from `rows` on; the same at both ends."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self._seed = seed

    def coefficients(self, number: int) -> Bytes:
        """Coefficients (rows,) of row `number`, uint8; a unit vector for a row of the broadcast itself."""
        if number < self.rows:
            return np.eye(1, self.rows, number, dtype=np.uint8).reshape(-1)
        return random_matrix(f"fresh/{number}", self._seed, 1, self.rows).reshape(-1)

    def combine(self, numbers: Sequence[int], rows: Bytes | Sequence[Bytes]) -> Bytes:
        """The rows of these numbers, (len(numbers), L), from all rows (rows, L) of the broadcast."""
        return gf256.Product(np.stack([self.coefficients(number) for number in numbers]))(rows)


class Solver:
    """Solves for the rows that one worker lost, from the rows it received and the vectors it knows.

    Parameters
    ----------
    G : uint8 array (R_down·P, columns)
        The rows of the broadcast as combinations of packets (`Plan.combined`).
    delivery : ColumnDelivery
        The rows that this worker decodes from, called its own rows here, and the packets that it knows.
    seed : int
        The plan's seed.

    Attributes
    ----------
    own : tuple of int
        Numbers of the worker's own rows. It needs as many rows, but any rows of the broadcast serve.
    rows : int
        Rows of the broadcast; the numbers from here on are those of fresh rows.

    Raises
    ------
    CodingError
        The own rows do not determine the wanted vectors; or the worker neither wants nor knows some packet of
        the broadcast, so that it cannot use fresh rows, which combine all packets.
    """

    def __init__(self, G: Bytes, delivery: ColumnDelivery, seed: int) -> None:
        self.own = delivery.rows
        self.rows = len(G)
        self._fresh = FreshRows(len(G), seed)
        self._G = np.ascontiguousarray(G)
        self._wanted, self._known = delivery.wanted, delivery.known
        if self._G[:, np.setdiff1d(np.arange(self._G.shape[1]), [*self._wanted, *self._known])].any():
            raise CodingError("fresh rows need a worker that wants or knows all that is combined in them")
        own = self._G[list(delivery.rows)]
        if len(own) != len(self._wanted):
            raise CodingError(f"{len(own)} rows cannot be solved for {len(self._wanted)} packets")
        self._inverse = linalg.invert(np.ascontiguousarray(own[:, self._wanted]))
        self._own_known = np.ascontiguousarray(own[:, self._known])
        foreign = gf256.matmul(np.ascontiguousarray(self._G[:, self._wanted]), self._inverse)
        self._useless = set(np.flatnonzero(~foreign.any(axis=1)).tolist())
        self._expressed: dict[int, Bytes] = {}
        self._solutions: OrderedDict[tuple[tuple[int, int], ...], gf256.Product] = OrderedDict()

    @classmethod
    def of(cls, plan: Plan, worker: int) -> Solver:
        """The solver of one worker for the broadcast of a plan."""
        return cls(plan.combined, plan.in_columns(multicast_delivery(plan, worker)), plan.seed)

    def useful(self, number: int) -> bool:
        """Whether a row may replace a lost one, as it is no combination of packets that the worker knows."""
        return number not in self._useless

    def redundant(self, filled: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """The places whose rows follow from the rows at the other places, so that other rows may take them.

        `filled` are the places of own rows that were lost, each with the number of the row that replaces it;
        all other places hold their own rows.
        """
        key = tuple(sorted(filled))
        if key in self._solutions:
            return ()
        lost = [place for place, _ in key]
        block = np.stack([self._express(number)[lost] for _, number in key])
        independent = set(linalg.independent_rows(block))
        if len(independent) < len(key):
            return tuple(place for i, place in enumerate(lost) if i not in independent)
        self._solutions[key] = self._solution(key, linalg.invert(block))
        if len(self._solutions) > MOST_SOLUTIONS:
            self._solutions.popitem(last=False)
        return ()

    def solve(self, filled: Sequence[tuple[int, int]], rows: Sequence[Bytes], known: Sequence[Bytes]) -> None:
        """Compute the lost rows, and write them over the rows that replaced them.

        Parameters
        ----------
        filled : sequence of (place, number)
            As for `redundant`, which must have returned no place.
        rows : sequence of uint8 arrays (L,), one for each place
        known : sequence of uint8 arrays (L,), one for each packet of the vectors that the worker knows

        Raises
        ------
        CodingError
            The rows do not determine the lost rows.
        """
        key = tuple(sorted(filled))
        if key not in self._solutions and self.redundant(key):
            raise CodingError(
                f"the rows {[number for _, number in key]} do not make up for those that were lost"
            )
        self._solutions.move_to_end(key)
        lost = [place for place, _ in key]
        for place, found in zip(lost, self._solutions[key]([*rows, *known]), strict=True):
            rows[place][:] = found

    def _express(self, number: int) -> Bytes:
        """A row as a combination of the own rows and the known packets: (own + known,) uint8.

        With `g` the row over packets: `a = g_wanted · G_own,wanted⁻¹` and `b = g_known − a · G_own,known`.
        """
        if number not in self._expressed:
            if len(self._expressed) > MOST_SOLUTIONS:
                self._expressed.clear()
            g = gf256.matmul(self._fresh.coefficients(number)[None, :], self._G)
            a = gf256.matmul(np.ascontiguousarray(g[:, self._wanted]), self._inverse)
            b = g[:, self._known] ^ gf256.matmul(a, self._own_known)
            self._expressed[number] = np.hstack([a, b])[0]
        return self._expressed[number]

    def _solution(self, key: tuple[tuple[int, int], ...], inverse: Bytes) -> gf256.Product:
        """Lost rows from all places and the known packets: `A⁻¹ (y − a_S Y_S − b V_known)`."""
        terms = np.stack([self._express(number) for _, number in key])
        lost = [place for place, _ in key]
        # The place of a lost row holds the row that replaces it, which counts once.
        terms[:, lost] = np.eye(len(key), dtype=np.uint8)
        return gf256.Product(gf256.matmul(inverse, terms))


def multicast_delivery(plan: Plan, worker: int) -> Delivery:
    """The delivery of a worker in a multicast group, where every worker receives all rows.

    The worker knows the vectors that it stores (under `central` the aggregates of its tasks), and needs as
    many rows as over TCP. Under `personal` it needs all rows, because a fresh row combines all models that
    are sent and the worker knows none of them. A worker that wants nothing needs no row.
    """
    delivery = plan.deliveries[worker]
    if plan.strategy == "uncoded":
        return Delivery(delivery.rows, delivery.wanted, plan.units.held[worker])
    if plan.strategy == "personal" and worker not in plan.helpers:
        models = sorted({task for each in plan.deliveries for task in each.wanted})
        return Delivery(tuple(range(len(models))), tuple(models), ())
    return delivery
