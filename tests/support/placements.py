"""Placements that tests share."""

from __future__ import annotations

import random
from collections.abc import Iterable

from asyncdmtl.plan.placement import Placement


def random_placement(rng: random.Random, most_workers: int = 6, most_partitions: int = 9) -> Placement:
    """Any sizes and overlaps: workers that store all or nothing, partitions held by one or by everyone."""
    K, N = rng.randint(1, most_workers), rng.randint(1, most_partitions)
    stored: dict[str, list[str]] = {f"w{k}": [] for k in range(K)}
    for n in range(N):
        holders = rng.sample(range(K), rng.choice([1, K, rng.randint(1, K)]))
        for k in holders:
            stored[f"w{k}"].append(f"p{n}")
    if rng.random() < 0.2:
        stored[f"w{rng.randrange(K)}"] = [f"p{n}" for n in range(N)]
    if rng.random() < 0.2 and K > 1:
        emptied = f"w{rng.randrange(K)}"
        kept = {name for worker, names in stored.items() if worker != emptied for name in names}
        stored[emptied] = [f"p{n}" for n in range(N) if f"p{n}" not in kept]
    return Placement(stored, [f"p{n}" for n in range(N)])


def numbered(drawn: Iterable[int]) -> tuple[int, ...]:
    """Tasks of partitions, numbered from 0 without gaps, from any numbers."""
    owners = list(drawn)
    order = sorted(set(owners))
    return tuple(order.index(task) for task in owners)


HOMOGENEOUS = Placement.cyclic(6, 6, 3)
HETEROGENEOUS = Placement(
    {
        "w0": ["p0", "p1", "p2", "p3", "p4", "p5", "p6"],
        "w1": ["p0", "p1", "p7"],
        "w2": ["p2", "p3", "p7", "p8"],
        "w3": ["p4", "p5", "p6", "p8", "p9"],
        "w4": ["p9", "p10", "p11"],
        "w5": [],
    },
    [f"p{n}" for n in range(12)],
)

LARGE = [
    Placement.cyclic(60, 250, 4),
    *(random_placement(random.Random(seed), most_workers=40, most_partitions=200) for seed in range(6)),
]
