"""Whole packets: uplink rates of `relay` for vectors that are cut into `P` packets."""

from __future__ import annotations

from math import ceil

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import check_subpackets
from asyncdmtl.plan.rates.cuts import MergedPartitions, PacketAssignment
from asyncdmtl.plan.rates.optimum import UplinkOptimum, uplink_optimum


def integral_rates(
    placement: Placement, subpackets: int, optimum: UplinkOptimum | None = None
) -> tuple[int, ...]:
    """The number of packets that each worker sends, with minimal sum and balanced between workers.

    Parameters
    ----------
    subpackets : int
        `P`, the number of packets of a vector.
    optimum : UplinkOptimum, optional
        The optimum of `placement`, if it is known.

    Returns
    -------
    tuple of K ints
        Rates in packets that violate no cut, of sum `⌈P·R_CO⌉`. They are decreasingly minimal: the largest
        rate is as small as possible, then the second largest, and so on.

    Raises
    ------
    UsageError
        `subpackets` is not a positive integer.

    Notes
    -----
    All rates rise together, and a worker stops when a cut allows no larger rate. For the bases of an integral
    polymatroid this is optimal (Federgruen, Groenevelt 1986; Frank, Murota, arXiv:1808.07600).
    """
    check_subpackets(subpackets)
    K = len(placement.workers)
    if K == 1:
        return (0,)
    total = ceil(subpackets * (optimum or uplink_optimum(placement)).load)
    merged = MergedPartitions.of(placement)
    slack = subpackets * merged.total - total
    assignment = PacketAssignment(merged, subpackets)
    rates = [0] * K
    rising = set(range(K))
    while rising:
        _raise_together(merged, subpackets, slack, assignment, rates, rising)
        for k in sorted(rising):
            if k not in rising:
                continue
            drawn = assignment.draw(k, slack + 1)
            if drawn > slack:
                rates[k] += 1
            else:
                rising -= assignment.dependents([k])
            assignment.release(k, slack)
    return tuple(rates)


def _raise_together(
    merged: MergedPartitions,
    packets: int,
    slack: int,
    assignment: PacketAssignment,
    rates: list[int],
    rising: set[int],
) -> None:
    """Raise the rates of all `rising` workers to the highest common level."""
    everyone = set(range(merged.workers))

    def highest(workers: set[int]) -> int:
        """The highest common level that the cut of these workers allows."""
        room = packets * merged.covered(workers) - slack - sum(rates[k] for k in workers - rising)
        return room // len(workers & rising)

    level = highest(everyone)
    for k in sorted(rising):
        held = rates[k]
        while (held := held + assignment.draw(k, level + slack - held)) < level + slack:
            level = highest(assignment.dependents([k]))
            for other in rising:
                if rates[other] > level:
                    assignment.release(other, rates[other] - level)
                    rates[other] = level
            if held > level + slack:
                assignment.release(k, held - level - slack)
                held = level + slack
        assignment.release(k, slack)
        rates[k] = level
