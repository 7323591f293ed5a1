"""Compare plans with brute force on random small placements.

python tools/sweep_planner.py linear 500     share of linear plans whose load is the fractional bound
python tools/sweep_planner.py wants 500      plans with helpers against the linear program over all cuts
python tools/sweep_planner.py designs 200    designs with speeds and copies against all placements

Every instance follows from its number; `--first` is the first one. A wrong plan ends the sweep with an error.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from fractions import Fraction
from itertools import combinations, combinations_with_replacement
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.linear_oracle import fractional_minimum
from support.oracle import placement_of, proper_subsets

from asyncdmtl import design_placement, make_linear_plan, make_plan
from asyncdmtl.plan.rates.job import certified_load
from asyncdmtl.plan.rates.makespan import fastest_rates


def require(holds: bool, what: object) -> None:
    """End the sweep unless this holds."""
    if not holds:
        raise SystemExit(f"wrong: {what}")


def linear(number: int) -> str:
    """A random target on 2 to 6 workers; odd numbers have one silent worker."""
    rng, generator = random.Random(number), np.random.default_rng(number)
    silent = number % 2
    K, N, C = rng.randint(2 + silent, 6), rng.randint(1, 9), rng.randint(1, 4)
    placement = placement_of(
        [rng.sample(range(K), rng.randint(silent + 1, min(K, silent + 3))) for _ in range(N)], K
    )
    generic = rng.random() < 0.6
    target = generator.standard_normal((C, N)) if generic else generator.integers(-2, 3, (C, N))
    plan = make_linear_plan(placement, target.astype(np.float64), silent=silent)
    V = generator.standard_normal((N, 12))
    rows = {k: plan.encode(k, V[list(M)]) for k, M in enumerate(placement.stored)}
    for responders in combinations(range(K), K - silent):
        total = plan.aggregate({k: rows[k] for k in responders}, length=12)
        require(np.allclose(total, target @ V, atol=1e-9), (number, responders))
    require(plan.condition <= 1e3, (number, plan.condition))
    return f"{silent} silent, {'at' if plan.gap == 0 else 'above'} the bound"


def wants(number: int) -> str:
    """A relay with tasks and helpers: its bound is exact, and workers that want something decode."""
    rng = random.Random(number)
    K, N = rng.randint(2, 4), rng.randint(1, 6)
    placement = placement_of([rng.sample(range(K), rng.randint(1, K)) for _ in range(N)], K)
    drawn = [rng.randrange(N) for _ in range(N)]
    tasks = [list(dict.fromkeys(drawn)).index(task) for task in drawn]
    helpers = sorted(rng.sample(range(K), rng.randint(0, K - 1)))
    plan = make_plan(placement, tasks=tasks, wants=["none" if k in helpers else "all" for k in range(K)])
    demanders = set(range(K)) - set(helpers)
    cuts = {
        frozenset(S): len({t for t, H in zip(tasks, placement.holders, strict=True) if set(H) <= set(S)})
        for S in proper_subsets(K)
        if not demanders <= set(S)
    }
    cuts = {S: count for S, count in cuts.items() if count}
    least = fractional_minimum(K, cuts) if cuts else Fraction(0)
    require(plan.uplink_bound == least <= plan.uplink_load, (number, plan.uplink_bound, least))
    proof = plan.job_bound.certificate
    require(certified_load(placement, tasks, proof, helpers=helpers) == least, (number, proof))
    V = np.random.default_rng(number).integers(0, 256, (len(plan.units.holders), 8)).astype(np.uint8)
    rows = plan.recombine([plan.encode(k, V[list(held)]) for k, held in enumerate(plan.units.held)])
    for k in demanders:
        sent = plan.deliveries[k]
        decoded = plan.decode(k, rows[list(sent.rows)], V[list(sent.known)])
        require(np.array_equal(decoded, V[list(sent.wanted)]), (number, k))
    return f"{'at' if plan.uplink_load == least else 'above'} the bound of the job"


def designs(number: int) -> str:
    """A design with speeds and copies: no placement is faster."""
    rng = random.Random(number)
    K, N = rng.randint(2, 4), rng.randint(2, 5)
    copies, room = rng.randint(1, K), [rng.randint(1, N) for _ in range(K)]
    speeds = [rng.choice([Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(3)]) for _ in range(K)]
    times = []
    for holders in combinations_with_replacement(list(combinations(range(K), copies)), N):
        placement = placement_of(holders, K)
        if all(len(M) <= most for M, most in zip(placement.stored, room, strict=True)):
            waits = max(Fraction(N - len(M)) / b for M, b in zip(placement.stored, speeds, strict=True))
            times.append(fastest_rates(placement, speeds).time + waits)
    if not times:
        return "no placement"
    found = design_placement(room, N, copies=copies, speeds=speeds).times
    require(found is not None and found.uplink + found.downlink == min(times), number)
    return "fastest"


def main() -> None:
    """Run the sweep that is asked for, and print what came of it."""
    sweeps = {"linear": linear, "wants": wants, "designs": designs}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", choices=sweeps)
    parser.add_argument("instances", type=int)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.instances)
    for outcome, count in sorted(Counter(map(sweeps[given.sweep], numbers)).items()):
        print(f"{count:6d}  {outcome}")


if __name__ == "__main__":
    main()
