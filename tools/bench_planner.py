"""Measure the planner's time for the bound on the uplink and for rates that meet it, for growing sizes.

    python tools/bench_planner.py [--quick] [--seeds N]

Times are medians of processor seconds, over random placements or over repetitions of a cyclic one. A time is
printed only if the certificate proves the load and no cut is violated.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import time
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from results import Table, write_results

from asyncdmtl.field.linalg import rank
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.rates.bounds import certificate_value, cost_bound, time_bound, violated_cut
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.integral import integral_rates
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum

Result = TypeVar("Result")

# Workers, partitions; the last ones of each kind only without --quick.
RANDOM = [(10, 100), (20, 200), (50, 500), (100, 1000), (200, 2000)]
# Of complete plans, the last two only without --quick.
PLANS = [(10, 100), (20, 200), (50, 500), (100, 1000), (200, 2000), (1000, 10000)]
CYCLIC = [(10, 100), (50, 500), (60, 60)]
STRUCTURED = [(10, 100), (100, 1000), (1000, 10000)]
# The most columns of a plan that is decoded for two workers. Of a larger one, ranks of two systems are
# checked, as prepared products would take 32 bytes for each entry of its matrices.
MOST_DECODED = 4000
# The most workers for which the proofs of cost and makespan are checked: with more, the check takes too long.
WEIGHTED_WORKERS = 200


def random_copies(workers: int, partitions: int, rng: random.Random) -> Placement:
    """Each partition at 3 to 5 random workers."""
    stored: dict[str, list[str]] = {f"w{k}": [] for k in range(workers)}
    for n in range(partitions):
        for k in rng.sample(range(workers), rng.randint(3, 5)):
            stored[f"w{k}"].append(f"p{n}")
    return Placement(stored)


def equal_storage(workers: int, partitions: int, rng: random.Random) -> Placement:
    """Each partition at 4 random workers among those that store the fewest partitions so far."""
    stored: list[list[str]] = [[] for _ in range(workers)]
    for n in range(partitions):
        for k in sorted(range(workers), key=lambda k: (len(stored[k]), rng.random()))[:4]:
            stored[k].append(f"p{n}")
    return Placement({f"w{k}": names for k, names in enumerate(stored)})


def cyclic(workers: int, partitions: int, rng: random.Random) -> Placement:
    """Each partition at 4 consecutive workers."""
    return Placement.cyclic(workers, partitions, 4)


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"WRONG RESULT: {what}")


def measure(placement: Placement, rng: random.Random) -> list[float]:
    """Seconds for the optimum, integral rates for one packet, separation, and cheapest and fastest rates."""
    optimum, optimum_time = timed(lambda: uplink_optimum(placement))
    require(certificate_value(placement, optimum.certificate) == optimum.load, "certificate")
    require(sum(optimum.rates) == optimum.load, "sum of rates")
    cut, cut_time = timed(lambda: violated_cut(placement, optimum.rates))
    require(cut is None, "rates")
    packets, packets_time = timed(lambda: integral_rates(placement, 1, optimum))
    require(sum(packets) == ceil(optimum.load) and violated_cut(placement, packets) is None, "integral rates")
    times = [optimum_time, packets_time, cut_time]
    if len(placement.workers) > WEIGHTED_WORKERS:
        return times
    weights = [Fraction(rng.randint(1, 100), 10) for _ in placement.workers]
    cheapest, cheapest_time = timed(lambda: cheapest_rates(placement, weights))
    require(cost_bound(placement, weights, cheapest.certificate) == cheapest.cost, "proof of the cost")
    require(violated_cut(placement, cheapest.rates) is None, "cheapest rates")
    fastest, fastest_time = timed(lambda: fastest_rates(placement, weights))
    require(time_bound(placement, weights, fastest.certificate) == fastest.time, "proof of the makespan")
    require(violated_cut(placement, fastest.rates) is None, "fastest rates")
    return [*times, cheapest_time, fastest_time]


def measure_plan(placement: Placement, seed: int) -> tuple[float, int, int]:
    """Seconds for the complete checked plan of the least load, its packets per vector, and merged units."""
    plan, seconds = timed(lambda: make_plan(placement))
    require(plan.uplink_load == plan.uplink_bound, "load")
    chosen = random.Random(seed).sample(range(len(placement.workers)), 2)
    if plan.combined.shape[1] > MOST_DECODED:
        for columns in (plan.in_columns(plan.deliveries[k]) for k in chosen):
            system = plan.combined[list(columns.rows)][:, columns.wanted]
            require(rank(system) == len(columns.wanted), "rank of a worker's system")
        return seconds, plan.subpackets, plan.merged
    V = np.random.default_rng(seed).integers(0, 256, (len(placement.partitions), 8), dtype=np.uint8)
    down = plan.recombine([plan.encode(k, V[list(stored)]) for k, stored in enumerate(placement.stored)])
    for k in chosen:
        delivery = plan.deliveries[k]
        decoded = plan.decode(k, down[list(delivery.rows)], V[list(delivery.known)])
        require(np.array_equal(decoded, V[list(delivery.wanted)]), "decoded vectors")
    return seconds, plan.subpackets, plan.merged


def report_plans(quick: bool, seeds: int) -> list[tuple[str, ...]]:
    """The second table: complete plans, each checked for two workers once more before its time counts."""
    shown: list[tuple[str, ...]] = []
    print(f"\n{'complete plan':<15}{'K':>6}{'N':>7}{'packets':>9}{'seconds':>9}")
    for make, sizes in ((cyclic, CYCLIC), (random_copies, PLANS[:-2] if quick else PLANS)):
        for workers, partitions in sizes:
            runs = [
                measure_plan(make(workers, partitions, random.Random(seed)), seed) for seed in range(seeds)
            ]
            seconds, packets, merged = (median(column) for column in zip(*runs, strict=True))
            print(f"{make.__name__:<15}{workers:>6}{partitions:>7}{packets:>9}{seconds:>9.2f}", flush=True)
            size = f"{workers:,} × {partitions:,}"
            name = make.__name__.replace("_", " ")
            cells = f"{packets:g}", f"{merged:g}", f"{seconds:.2f} s"
            shown.append((name, size, *cells))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    parser.add_argument("--seeds", type=int, default=3, help="placements per size (default 3)")
    parser.add_argument("--results", type=Path, help="write the tables here as JSON")
    options = parser.parse_args()

    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    columns = "".join(f"{name:>10}" for name in ("optimum", "integral", "cut", "cheapest", "fastest"))
    print(f"{'placement':<15}{'K':>6}{'N':>7}{columns}")
    shown: list[tuple[str, ...]] = []
    for make, sizes in ((random_copies, RANDOM), (equal_storage, STRUCTURED), (cyclic, STRUCTURED)):
        for workers, partitions in sizes[:-1] if options.quick else sizes:
            rows = []
            for seed in range(options.seeds):
                rng = random.Random(seed)
                rows.append(measure(make(workers, partitions, rng), rng))
            cells = "".join(f"{median(column):>10.3f}" for column in zip(*rows, strict=True))
            print(f"{make.__name__:<15}{workers:>6}{partitions:>7}{cells}", flush=True)
            figures = [f"{median(column):.3f} s" for column in zip(*rows, strict=True)]
            shown.append((make.__name__.replace("_", " "), f"{workers:,} × {partitions:,}", *figures[:2]))
    plans = report_plans(options.quick, options.seeds)
    if options.results is not None:
        rates = ("placement", "workers × partitions", "bound, rates, certificate", "balanced integral rates")
        whole = (
            "placement",
            "workers × partitions",
            "packets",
            "merged vectors",
            "complete checked plan",
        )
        tables = [Table("rates", rates, tuple(shown)), Table("plans", whole, tuple(plans))]
        write_results(options.results, tables)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
