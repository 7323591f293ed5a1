"""Compare plans with brute force on random small placements.

python tools/sweep_planner.py linear 500     share of linear plans whose load is the fractional bound
python tools/sweep_planner.py workers 500    the same for targets that only workers need, some of them helpers
python tools/sweep_planner.py wants 500      plans with helpers against the linear program over all cuts
python tools/sweep_planner.py job 500        relay and central with tasks: loads beside the bound of the job
python tools/sweep_planner.py sums 500       how often sums of some partitions of a task would lower loads
python tools/sweep_planner.py silent 500     central with tasks and silent workers, decoded by all responders
python tools/sweep_planner.py prices 500     the least cost, its proof, and the fewest packets that reach it
python tools/sweep_planner.py speeds 500     the fewest packets, and refusals, of the fastest uplink
python tools/sweep_planner.py designs 200    designs with speeds and copies against all placements
python tools/sweep_planner.py relays 500     loads of every level of random trees, and designs for them

Every instance follows from its number; `--first` is the first one. A wrong plan ends the sweep with an error.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, combinations_with_replacement, product
from math import floor, prod
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.linear_oracle import fractional_minimum
from support.oracle import placement_of, proper_subsets, set_partitions
from sweep_trees import least_between, random_tree, stored_below

from asyncdmtl import (
    Placement,
    PlanError,
    compare_hierarchies,
    design_hierarchy,
    design_placement,
    make_linear_plan,
    make_plan,
)
from asyncdmtl.plan.limits import MOST_SUBPACKETS
from asyncdmtl.plan.rates.bounds import cost_bound
from asyncdmtl.plan.rates.job import certified_load
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum

# The most combinations of sums that are tried for one placement: some seconds.
MOST_SPLITS = 3000

# The most packets with which the least cost is computed for comparison.
MOST_PRICED = 12


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


def workers(number: int) -> str:
    """A target that only workers need: the bound is exact, and every worker that wants it recovers it."""
    rng, generator = random.Random(number), np.random.default_rng(number)
    silent = number % 2
    K, N, C = rng.randint(2 + silent, 5), rng.randint(1, 7), rng.randint(1, 5)
    placement = placement_of([rng.sample(range(K), rng.randint(silent + 1, K)) for _ in range(N)], K)
    generic = rng.random() < 0.6
    target = (generator.standard_normal((C, N)) if generic else generator.integers(-2, 3, (C, N))).astype(
        float
    )
    helpers = rng.sample(range(K), rng.randint(1, K - 1)) if number % 3 == 0 else []
    words = ["none" if k in helpers else "all" for k in range(K)]
    plan = make_linear_plan(placement, target, silent=silent, at_server=False, wants=words)
    demanders = set(range(K)) - set(helpers)
    cuts: dict[frozenset[int], int] = {}
    for S in [*proper_subsets(K), tuple(range(K))]:
        inside = [n for n, H in enumerate(placement.holders) if set(H) <= set(S)]
        rank = int(np.linalg.matrix_rank(target[:, inside])) if inside and not demanders <= set(S) else 0
        for responding in combinations(S, max(0, len(S) - silent)):
            cuts[frozenset(responding)] = max(cuts.get(frozenset(responding), 0), rank)
    cuts = {S: rank for S, rank in cuts.items() if rank}
    least = fractional_minimum(K, cuts) if cuts else Fraction(0)
    require(plan.fractional_bound == least <= plan.uplink_load, (number, plan.fractional_bound, least))
    require(plan.condition <= 1e3, (number, plan.condition))
    V = generator.standard_normal((N, 12))
    rows = {k: plan.encode(k, V[list(M)]) for k, M in enumerate(placement.stored)}
    for responders in combinations(range(K), K - silent):
        down = plan.broadcast(plan.aggregate({k: rows[k] for k in responders}, length=12))
        for k in demanders:
            found = plan.recover(k, down[: plan.missing_ranks[k]], V[list(placement.stored[k])])
            require(np.allclose(found, target @ V, atol=1e-8), (number, responders, k))
    kind = "some help" if helpers else "all want it"
    return f"{silent} silent, {kind}, {'at' if plan.gap == 0 else 'above'} the bound"


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


def random_job(number: int, most_workers: int, least_copies: int = 1) -> tuple[Placement, list[int]]:
    """A random placement, and the task of each partition."""
    rng = random.Random(number)
    K, N = rng.randint(max(2, least_copies), most_workers), rng.randint(1, 8)
    holders = [rng.sample(range(K), rng.randint(least_copies, K)) for _ in range(N)]
    drawn = [rng.randrange(rng.randint(1, N)) for _ in range(N)]
    return placement_of(holders, K), [list(dict.fromkeys(drawn)).index(task) for task in drawn]


def lacking(placement: Placement, tasks: Sequence[int], workers: Collection[int]) -> int:
    """`ex_job(S)`: the tasks that nobody outside of `workers` can compute."""
    inside = set(workers)
    return len({t for t, H in zip(tasks, placement.holders, strict=True) if set(H) <= inside})


def job(number: int) -> str:
    """A relay and a central plan with tasks: bounds are those of the linear program over all cuts."""
    placement, tasks = random_job(number, 4)
    K = len(placement.workers)
    cuts = {frozenset(S): count for S in proper_subsets(K) if (count := lacking(placement, tasks, S))}
    least = fractional_minimum(K, cuts) if cuts else Fraction(0)
    told = []
    for strategy in ("relay", "central"):
        plan = make_plan(placement, strategy, tasks=tasks)
        require(plan.uplink_bound == least <= plan.uplink_load, (number, strategy, plan.uplink_bound, least))
        proof = plan.job_bound.certificate
        require(certified_load(placement, tasks, proof) == least, (number, strategy, proof))
        told.append(f"{strategy} {'at' if plan.uplink_load == least else 'above'}")
    return f"{', '.join(told)} the bound of the job"


def halvings(own: list[int]) -> list[list[list[int]]]:
    """All ways to split a task into nodes of its tree: the whole, or splits of both halves."""
    if len(own) == 1:
        return [[own]]
    middle = (len(own) + 1) // 2
    return [[own], *(a + b for a, b in product(halvings(own[:middle]), halvings(own[middle:])))]


def sums(number: int) -> str:
    """Plans with sums: no choice of nodes of the tree has a smaller uplink, and what travels is decoded.

    The result also says whether sums lower the uplink, and whether sums of any partitions would.
    """
    placement, tasks = random_job(number, 5)
    K, owned = len(placement.workers), range(max(tasks) + 1)
    partitions = [[n for n, task in enumerate(tasks) if task == t] for t in owned]

    def best(choices: list[list[list[list[int]]]]) -> tuple[Fraction, int]:
        """The smallest uplinks of relay and of central, if each task is split in one of these ways."""
        relays, centrals = [], []
        for chosen in product(*choices):
            held = [set.intersection(*(set(placement.holders[n]) for n in group))
                    for split in chosen for group in split]  # fmt: skip
            if all(held):
                relays.append(uplink_optimum(placement_of([sorted(H) for H in held], K)).load)
                centrals.append(len(held))
        return min(relays), min(centrals)

    whole = best([[[[n] for n in own], [own]] for own in partitions])
    tree = best([halvings(own) for own in partitions])
    plans = [make_plan(placement, name, tasks=tasks, units="sums") for name in ("relay", "central")]
    loads = tuple(plan.uplink_load for plan in plans)
    require(list(loads) == list(tree), (number, loads, tree))
    weights = [1 + n % 3 for n in range(len(tasks))]
    V = np.random.default_rng(number).integers(0, 100, (len(tasks), 6))
    for plan in plans:
        require(plan.uplink_bound <= plan.uplink_load, (number, plan.uplink_bound, plan.uplink_load))
        groups = [plan.units.parts(unit, partitions) for unit in range(len(plan.units.holders))]
        require(sorted(n for group in groups for n in group) == list(range(len(tasks))), (number, groups))
        coded = np.array([sum(weights[n] * V[n] for n in group) for group in groups])
        rows = [plan.encode(k, coded[list(held)]) for k, held in enumerate(plan.units.held)]
        if plan.strategy == "central":
            found = plan.collect(dict(enumerate(rows)), 6, coded.dtype)
            require(np.array_equal(found, coded), (number, "collected"))
            continue
        down = plan.recombine(rows)
        for k, delivery in enumerate(plan.deliveries):
            found = plan.decode(k, down[list(delivery.rows)], coded[list(delivery.known)])
            require(np.array_equal(found, coded[list(delivery.wanted)]), (number, k))
    splits = [list(set_partitions(own)) for own in partitions]
    if prod(map(len, splits)) > MOST_SPLITS:
        return "sums of any partitions are too many to try"
    free = best(splits)
    told = []
    for i, name in enumerate(("relay", "central")):
        more = " (with any sums lower)" if free[i] < tree[i] else ""
        told.append(f"{name} {'lower' if tree[i] < whole[i] else 'as with whole tasks'}{more}")
    return ", ".join(told)


def silent(number: int) -> str:
    """A central plan with tasks and silent workers: the server decodes from every set of responders."""
    s = 1 + number % 2
    placement, tasks = random_job(number, 4, s + 1)
    K = len(placement.workers)
    plan = make_plan(placement, "central", tasks=tasks, silent=s)
    cuts: dict[frozenset[int], int] = {}
    for S in [*proper_subsets(K), tuple(range(K))]:
        for responding in combinations(S, max(0, len(S) - s)):
            cut = frozenset(responding)
            cuts[cut] = max(cuts.get(cut, 0), lacking(placement, tasks, S))
    require(not cuts.pop(frozenset(), 0), number)
    least = fractional_minimum(K, {cut: count for cut, count in cuts.items() if count})
    require(plan.uplink_bound == least <= plan.uplink_load, (number, plan.uplink_bound, least))
    V = np.random.default_rng(number).integers(0, 256, (len(plan.units.holders), 12)).astype(np.uint8)
    rows = {k: plan.encode(k, V[list(held)]) for k, held in enumerate(plan.units.held)}
    for responders in combinations(range(K), K - s):
        found = plan.collect({k: rows[k] for k in responders}, 12, np.uint8)
        require(np.array_equal(found, V), (number, responders))
    return f"{s} silent, {'at' if plan.uplink_load == least else 'above'} the bound of the job"


def prices(number: int) -> str:
    """The cheapest uplink of relay with tasks and helpers: its cost, proof, and the fewest packets."""
    rng = random.Random(number)
    K, N = rng.randint(2, 4), rng.randint(1, 6)
    placement = placement_of([rng.sample(range(K), rng.randint(1, K)) for _ in range(N)], K)
    c = [rng.choice([Fraction(0), Fraction(1, 3), Fraction(1), Fraction(2), Fraction(5, 2), Fraction(40)])
         for _ in range(K)]  # fmt: skip
    overhead = rng.choice([Fraction(0), Fraction(1, 100), Fraction(1, 5)])
    helpers = rng.sample(range(K), rng.randint(1, K - 1)) if number % 2 else []
    demanders = set(range(K)) - set(helpers)
    partitions = list(range(N))
    cuts = {frozenset(S): count for S in proper_subsets(K)
            if not demanders <= set(S) and (count := lacking(placement, partitions, S))}  # fmt: skip
    least = cheapest_cover(K, cuts, c)
    wanted = ["none" if k in helpers else "all" for k in range(K)]
    fewest = next(
        (P for P in range(1, MOST_PRICED + 1)
         if cheapest_packets(K, cuts, c, P, N) <= (1 + overhead) * P * least), None)  # fmt: skip
    try:
        plan = make_plan(placement, prices=c, max_overhead=overhead, wants=wanted)
    except PlanError as error:
        require(fewest is None, (number, fewest, error))
        return "refused"
    objective = plan.objective
    assert objective is not None
    require(objective.bound == least, (number, objective.bound, least))
    cost = sum((c * R * plan.packet_load for c, R in zip(c, plan.uplink_rows, strict=True)), Fraction(0))
    require(objective.value == cost <= (1 + overhead) * least, (number, cost, least))
    require(
        plan.subpackets == fewest or (fewest is None and plan.subpackets > MOST_PRICED),
        (number, plan.subpackets, fewest),
    )
    if not helpers:
        require(cost_bound(placement, c, objective.certificate) == least, (number, objective.certificate))
    for S, count in cuts.items():
        require(sum(plan.uplink_rows[k] for k in S) >= plan.subpackets * count, (number, S))
    return f"cheapest{', with helpers' if helpers else ''}"


def cheapest_cover(K: int, cuts: Mapping[frozenset[int], int], c: Sequence[Fraction]) -> Fraction:
    """The least `Σ c_k R_k` over the cuts, at the vertices of the dual program: exact."""
    outcome = linprog([float(x) for x in c], A_ub=[[-float(k in S) for k in range(K)] for S in cuts] or None,
                      b_ub=[-float(count) for count in cuts.values()] or None)  # fmt: skip
    return Fraction(outcome.fun).limit_denominator(10_000)


def cheapest_packets(
    K: int, cuts: Mapping[frozenset[int], int], c: Sequence[Fraction], P: int, N: int
) -> Fraction:
    """The least cost in whole packets, P to a vector, by branch and bound of another program."""
    if not cuts:
        return Fraction(0)
    least = [float(P * count) for count in cuts.values()]
    limits = LinearConstraint([[float(k in S) for k in range(K)] for S in cuts], least, np.inf)
    outcome = milp([float(x) for x in c], integrality=np.ones(K), bounds=Bounds(0, P * N), constraints=limits)
    return sum((price * int(rate) for price, rate in zip(c, np.rint(outcome.x), strict=True)), Fraction(0))


def speeds(number: int) -> str:
    """The fastest uplink: its time, the fewest packets within the overhead, and justified refusals."""
    rng = random.Random(number)
    K, N = rng.randint(2, 5), rng.randint(1, 8)
    placement = placement_of([rng.sample(range(K), rng.randint(1, K)) for _ in range(N)], K)
    b = [rng.choice([Fraction(1, 10), Fraction(1, 3), Fraction(1), Fraction(7), Fraction(100)])
         for _ in range(K)]  # fmt: skip
    overhead = rng.choice([Fraction(0), Fraction(1, 100), Fraction(1, 20), Fraction(1, 2)])
    partitions = list(range(N))
    cuts = {S: count for S in proper_subsets(K) if (count := lacking(placement, partitions, S))}
    time = max((count / sum(b[k] for k in S) for S, count in cuts.items()), default=Fraction(0))

    def suffices(P: int) -> bool:
        limits = [floor(P * (1 + overhead) * time * speed) for speed in b]
        return all(sum(limits[k] for k in S) >= P * count for S, count in cuts.items())

    fewest = next((P for P in range(1, MOST_SUBPACKETS + 1) if suffices(P)), None)
    try:
        plan = make_plan(placement, speeds=b, max_overhead=overhead)
    except PlanError as error:
        require(fewest is None, (number, fewest, error))
        return f"refused, as more than {MOST_SUBPACKETS} packets are needed"
    require(plan.subpackets == fewest, (number, plan.subpackets, fewest))
    slowest = max(count * plan.packet_load / speed for count, speed in zip(plan.uplink_rows, b, strict=True))
    require(plan.objective is not None and plan.objective.bound == time, (number, time))
    require(time <= slowest <= (1 + overhead) * time, (number, slowest, time))
    return "planned with the fewest packets"


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


def relays(number: int) -> str:
    """A tree of up to three levels: every level against an own walk and the linear program over all cuts."""
    topology = random_tree(number)
    placement, behind = topology.placement, {relay: list(nodes) for relay, nodes in topology.relays.items()}
    N = len(placement.partitions)
    found = {each.server.strategy: each for each in compare_hierarchies(topology)}
    relay, uncoded = found["relay"], found["uncoded"]
    held = {node: stored_below(node, behind, placement.as_dict()) for node in (*placement.workers, *behind)}
    inner = {node for nodes in behind.values() for node in nodes}
    top = [node for node in (*placement.workers, *behind) if node not in inner]
    least = least_between([held[node] for node in top], N)
    smallest = min(len(held[node]) for node in top)
    up, down = relay.levels[0].uplink_load, relay.levels[0].downlink_load
    require(up == least and down == N - smallest, (number, up, down, least, N - smallest))
    met = relay.server.uplink_bound == up and relay.server.downlink_bound == down
    require(met, (number, "the bound is not met"))
    # Every update goes up once; a single node sends all that it holds.
    require(uncoded.levels[0].uplink_load == N, (number, uncoded.levels[0]))
    for level in relay.levels[1:]:
        nodes = behind[str(level.relay)]
        require(level.uplink_load == len(held[str(level.relay)]), (number, level))
        require(level.copies == tuple(N - len(held[node]) for node in nodes), (number, level))
        sending = zip(level.rates, nodes, strict=True)
        require(all(rate <= len(held[node]) for rate, node in sending), (number, level))
    room = [len(own) for own in placement.stored]
    design = design_hierarchy(behind, dict(zip(placement.workers, room, strict=True)), N, seed=number)
    made = [set(design.topology.stored(node)) for node in design.topology.top]
    require(design.uplink_load == least_between(made, N), (number, design))
    require(design.downlink_load == N - min(map(len, made)), (number, design))
    total = design.uplink_load + design.downlink_load
    require(design.uplink_bound + design.downlink_bound <= total <= least + N - smallest, (number, total))
    return f"{'trees' if len(behind) > 1 else 'one relay'}, design {'optimal' if design.optimal else 'open'}"


def main() -> None:
    """Run the sweep that is asked for, and print what came of it."""
    sweeps = {
        "linear": linear, "workers": workers, "wants": wants, "job": job, "sums": sums, "silent": silent,
        "prices": prices, "speeds": speeds, "designs": designs, "relays": relays,
    }  # fmt: skip
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
