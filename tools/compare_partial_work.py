"""Whether rows of the partitions that are done already would shorten rounds: `tools/compare_partial_work.py`.

A worker computes its partitions one after the other, and a row may be sent once all partitions that it
combines are computed. Rows of the program combine all partitions of a worker. This tool computes the least
time until the uplink of a round of `relay` suffices, by linear programs over all rates: for such rows; for
rows of the partitions that are done first, in the best order; and for rows of all workers but the slow one,
which `--silent 1` does not wait for. Any rates that satisfy the cuts have a code, and none has less.

A round takes at least until the others have computed all their partitions, with which they decode, and the
rows that they lack have come down.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, permutations, product
from pathlib import Path

import click
import numpy as np
from results import Table, results_option, write_results
from scipy.optimize import linprog

from asyncdmtl.plan.placement import Placement

# A worker, the time from which it sends rows, and the partitions that they combine.
Sender = tuple[int, float, frozenset[int]]


def least_time(placement: Placement, senders: Sequence[Sender]) -> float:
    """The least time until every worker can decode what it lacks, with a vector a unit of time on each link.

    Variables are the vectors of each sender and the time `T`. All senders of a worker that begin at `t` or
    later share its link from `t` on: they send `T − t` vectors at most. No sender may begin later than `T`.
    """
    above, limits = [], []
    for worker, begin, _ in senders:
        row = [float(other == worker and later >= begin) for other, later, _ in senders]
        above.append([*row, -1.0])
        limits.append(-begin)
    cuts = set()
    everything = set(range(len(placement.partitions)))
    for stored in placement.stored:
        lacked = sorted(everything - set(stored))
        subsets = chain.from_iterable(combinations(lacked, n + 1) for n in range(len(lacked)))
        cuts |= set(map(frozenset, subsets))
    for cut in cuts:
        above.append([*(-float(bool(cut & has)) for _, _, has in senders), 0.0])
        limits.append(-float(len(cut)))
    costs = [*(0.0 for _ in senders), 1.0]
    found = linprog(costs, np.array(above), np.array(limits), method="highs")
    return float(found.fun) if found.success else float("inf")


def whole(placement: Placement, costs: Sequence[float], without: int | None = None) -> list[Sender]:
    """Senders of rows that combine all partitions of a worker."""
    return [
        (k, costs[k] * len(stored), frozenset(stored))
        for k, stored in enumerate(placement.stored)
        if k != without
    ]


def partial(orders: Sequence[Sequence[int]], costs: Sequence[float], counts: Sequence[int]) -> list[Sender]:
    """Senders of rows that combine the first partitions that are done, up to a number for each worker."""
    return [
        (k, costs[k] * count, frozenset(order[:count]))
        for k, order in enumerate(orders)
        for count in range(1, counts[k] + 1)
    ]


def best_partial(placement: Placement, costs: Sequence[float], slow: int) -> float:
    """The least time over all orders at the slow worker, and orders of the others that are one rule.

    The slow worker and the others send until some number of their partitions is done.
    """
    stored, times = placement.stored, []
    copies = len(stored[slow])
    for rule in permutations(range(copies)):
        others = [[own[i] for i in rule] for own in stored]
        for order in permutations(stored[slow]):
            orders = [order if k == slow else other for k, other in enumerate(others)]
            for late, soon in product(range(copies + 1), range(1, copies + 1)):
                counts = [late if k == slow else soon for k in range(len(stored))]
                times.append(least_time(placement, partial(orders, costs, counts)))
    return min(times)


@click.command(context_settings={"show_default": True})
@click.option("--workers", default=5, help="As many partitions; placed cyclically.")
@click.option("--copies", default=3)
@click.option("--slower", default=3.0, help="How many times as slow one worker computes.")
@results_option
def main(workers: int, copies: int, slower: float, results_file: Path | None) -> None:
    """Print times until the uplink suffices, in units of a vector on a link."""
    placement, slow, rows = Placement.cyclic(workers, workers, copies), workers // 2, []
    for cost in (0.05, 0.2, 1.0, 5.0):
        costs = [cost * (slower if k == slow else 1.0) for k in range(workers)]
        all_done = least_time(placement, whole(placement, costs))
        some_done = best_partial(placement, costs, slow)
        absent = least_time(placement, whole(placement, costs, without=slow))
        times = some_done, min(all_done, absent)
        rounds = [max(time, cost * copies) + workers - copies for time in times]
        cells = all_done, some_done, absent, *rounds
        rows.append((f"{cost:g}", *(f"{time:.2f}" for time in cells), f"{rounds[0] / rounds[1] - 1:.0%}"))
        click.echo(" | ".join(rows[-1]))
    head = (
        "a partition takes", "rows of all partitions", "of those that are done", "without the slow worker",
        "a round, of those that are done", "the shorter of the other rounds", "difference",
    )  # fmt: skip
    table = Table("partial_work", head, tuple(rows))
    click.echo(table.markdown())
    if results_file is not None:
        write_results(results_file, [table])


if __name__ == "__main__":
    main()
