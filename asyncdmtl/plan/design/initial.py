"""The initial stores of a placement design: the size of each, and an even filling.

The capacity `m_k` is the number of partitions that worker `k` may store. Its link has the speed `b_k`, in
vectors per unit of time, in both directions. The downlink takes the time `max_k (N − |M_k|)/b_k`, since every
worker is sent as many rows as it lacks partitions. The uplink takes at least `(N − Σ_{k∈S} |M_k|) / Σ_{k∉S}
b_k` for every group `S` of workers, since the others send the partitions that `S` lacks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from heapq import heapify, heappop, heapreplace

from asyncdmtl.plan.design.swaps import Stores
from asyncdmtl.plan.placement import Placement

Rank = tuple[int, Fraction]

# The number of splits of the copies, between a faster uplink and a faster downlink, that are tried.
SHARES = 8


def sizes_of_least_load(m: Sequence[int], total: int) -> tuple[int, ...]:
    """Sizes `|M_k| <= m_k` with sum `total <= Σ m_k` whose smallest is as large as possible."""
    return _filled(m, [(total, lambda k, size: (size, Fraction(0)))])


def sizes_of_least_time(
    m: Sequence[int], total: int, N: int, b: Sequence[Fraction], shares: int = SHARES
) -> tuple[int, ...]:
    """Sizes `|M_k| <= m_k` with sum `total <= Σ m_k` for which uplink and downlink together take little time.

    Copies at slow workers shorten the downlink, copies at fast workers the uplink. The copies are divided
    between the two purposes in several ways, in steps of `1/shares`. With a single share, all copies shorten
    the downlink, whose time is then minimal.
    """
    if total == sum(m):
        return tuple(m)
    B = sum(b, Fraction(0))

    def sends(k: int, size: int) -> Rank:
        """The priority for a faster uplink: first each worker stores as much as it has time to send."""
        lacks = Fraction(size - N)
        return (0, size / b[k]) if size < N * b[k] / B else (1, lacks / (B - b[k]))

    def waits(k: int, size: int) -> Rank:
        return 0, (size - N) / b[k]

    def time(sizes: Sequence[int]) -> Fraction:
        return least_uplink_time(sizes, b, N) + downlink_time(sizes, b, N)

    uplink = [total * i // shares for i in range(shares)]
    return min((_filled(m, [(up, sends), (total - up, waits)]) for up in uplink), key=time)


def downlink_time(sizes: Sequence[int], b: Sequence[Fraction], N: int) -> Fraction:
    """`max_k (N − |M_k|)/b_k`."""
    return max((N - size) / speed for size, speed in zip(sizes, b, strict=True))


def least_uplink_time(sizes: Sequence[int], b: Sequence[Fraction], N: int) -> Fraction:
    """The largest `(N − Σ_{k∈S} |M_k|) / Σ_{k∉S} b_k` over non-empty proper subsets `S` of the workers.

    Dinkelbach's method: at the largest quotient `τ`, no `S` has a positive `N − |M|(S) − τ·b(others)`, and
    the maximising `S` is the set of workers with `τ·b_k > |M_k|`.
    """
    K = len(sizes)
    time = Fraction(0)
    while K > 1:
        surplus = [time * speed - size for size, speed in zip(sizes, b, strict=True)]
        ranked = sorted(range(K), key=lambda k: surplus[k], reverse=True)
        S = [ranked[0], *(k for k in ranked[1:-1] if surplus[k] > 0)]
        proven = Fraction(N - sum(sizes[k] for k in S)) / sum(b[k] for k in range(K) if k not in S)
        if proven <= time:
            break
        time = proven
    return time


def even_stores(sizes: Sequence[int], N: int, rng: random.Random, order: Sequence[int]) -> Stores:
    """Stores of these sizes (at most `N`) such that the numbers of holders of partitions differ by at most
    one.

    Every worker takes, in `order`, the partitions with the fewest holders so far.
    """
    held = [0] * N
    stored: Stores = [set() for _ in sizes]
    for k in order:
        fewest_first = sorted(range(N), key=lambda n: (held[n], rng.random()))
        stored[k] = set(fewest_first[: sizes[k]])
        for n in stored[k]:
            held[n] += 1
    return stored


def cyclic_stores(sizes: Sequence[int], N: int) -> Stores | None:
    """The stores of a cyclic placement with these sizes; None if the sizes differ by more than one."""
    copies, rest = divmod(sum(sizes), N)
    if rest or max(sizes) - min(sizes) > 1:
        return None
    cyclic = Placement.cyclic(len(sizes), N, copies).stored
    of_size = {size: iter([store for store in cyclic if len(store) == size]) for size in set(sizes)}
    return [set(next(of_size[size])) for size in sizes]


def _filled(m: Sequence[int], wishes: Sequence[tuple[int, Callable[[int, int], Rank]]]) -> tuple[int, ...]:
    """Hand out copies one by one, each to the worker with room whose `rank(worker, size)` is smallest."""
    sizes = [0] * len(m)
    for amount, rank in wishes:
        queue = [(rank(k, size), k) for k, size in enumerate(sizes) if size < m[k]]
        heapify(queue)
        for _ in range(amount):
            k = queue[0][1]
            sizes[k] += 1
            if sizes[k] < m[k]:
                heapreplace(queue, (rank(k, sizes[k]), k))
            else:
                heappop(queue)
    return tuple(sizes)
