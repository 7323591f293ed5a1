"""Placement design: choose the partitions of each worker so that the loads of `relay` are minimal.

The capacity `m_k` is the number of partitions that worker `k` may store. For all placements that respect the
capacities:

- The downlink load is `N − min_k |M_k|` (docs/theory.md, section 3): it depends on the smallest store only.
- Uplink: `R_CO >= max(Σ_k (N − |M_k|) / (K−1), max_k (N − |M_k|))`. The first is the certificate with every
  worker as a block of its own. The second is that of one worker against all others, which must send it
  everything that it lacks. No other certificate proves more from the sizes alone. With `C = Σ_k |M_k|` copies
  this is

      `R_CO >= N − min((C − N)/(K−1), min_k |M_k|)`,

  and if `C − N < K − 1` it is `R_CO = N`: a placement is a hypergraph on the workers with partitions as
  hyperedges, connecting `K` vertices takes hyperedges with `Σ_n (|H_n| − 1) >= K − 1`, and two groups of
  workers without a common partition must tell each other everything.
- With link speeds `b_k`, the makespan of the uplink is `max_k R_k/b_k >= (N − Σ_{k∈S} |M_k|) / Σ_{k∉S} b_k`
  for every group `S` of workers, because the others send the partitions that `S` lacks. Dinkelbach's method
  finds the best `S`.

For equal capacities, the cyclic placement is optimal. If `K` divides `N`, any `s` of its workers store at
least the share `min(1, (s + c − 1)/K)` of all partitions (`c` copies). So `q` blocks of workers that all lack
some partition prove at most `N/K · (q(K−c+1) − K)/(q−1)`, which grows with `q`, so that `K` single workers
prove the most. Certificates with blocks that lack nothing prove no more than one worker against the others.
Hence `R_CO` equals the bound.

All other designs start from an even filling, which swaps (see `swaps`) improve until the bound is met or the
effort is used up. The loads of a design are computed by `uplink_optimum` (or `fastest_rates`), not assumed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.design.exhaustive import fastest_stores
from asyncdmtl.plan.design.initial import (
    cyclic_stores,
    downlink_time,
    even_stores,
    least_uplink_time,
    sizes_of_least_load,
    sizes_of_least_time,
)
from asyncdmtl.plan.design.swaps import Stores, apply, move, replacement, swap, undo
from asyncdmtl.plan.notebook import plan_as_html
from asyncdmtl.plan.placement import Placement, counted, listed
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.validation import rational

# The most copies of partitions that all swaps together may examine: a second or two, for any size.
EFFORT = 200_000

# The most swaps that are tried, even for small placements.
MOST_STEPS = 400


@dataclass(frozen=True)
class LinkTimes:
    """The time that a round's vectors travel on links of given speeds, and its lower bound.

    Attributes
    ----------
    uplink : Fraction
        `max_k R_k / b_k`, the makespan of the uplink.
    uplink_bound : Fraction
        A lower bound of `uplink` over all placements with these capacities and copies.
    downlink : Fraction
        `max_k (N − |M_k|) / b_k`: every worker is sent as many rows as it lacks partitions, over its own
        link.
    downlink_bound : Fraction
        A lower bound of `downlink` over all placements with these capacities and copies.
    """

    uplink: Fraction
    uplink_bound: Fraction
    downlink: Fraction
    downlink_bound: Fraction


@dataclass(frozen=True)
class Design:
    """A placement, the loads of `relay` on it, and their lower bounds over all placements.

    Attributes
    ----------
    placement : Placement
    uplink_rates : tuple of K Fractions
        `R_k`, in vectors; they violate no cut.
    uplink_load, downlink_load : Fraction
        `Σ_k R_k` and the broadcast load `max_k (N − |M_k|)`, in vectors.
    uplink_bound, downlink_bound : Fraction
        Lower bounds on the loads over all placements with these capacities and copies.
    times : LinkTimes or None
        The times, which were minimised instead of the loads if link speeds were given; else None.
    """

    placement: Placement
    uplink_rates: tuple[Fraction, ...]
    uplink_load: Fraction
    downlink_load: Fraction
    uplink_bound: Fraction
    downlink_bound: Fraction
    times: LinkTimes | None = None

    def _repr_html_(self) -> str:
        up = self.uplink_load, self.uplink_bound
        down = self.downlink_load, self.downlink_bound
        known = "optimal" if self.optimal else f"{self.gap} above the bound"
        return plan_as_html(f"Design, {known}", self.placement, self.uplink_rates, up, down)

    @property
    def gap(self) -> Fraction:
        """The total load (with speeds the total time) minus its bound."""
        if self.times is None:
            return self.uplink_load + self.downlink_load - self.uplink_bound - self.downlink_bound
        return self.times.uplink + self.times.downlink - self.times.uplink_bound - self.times.downlink_bound

    @property
    def optimal(self) -> bool:
        """Whether the bounds prove the placement optimal. If False, a better one need not exist."""
        return self.gap == 0


def design_placement(
    capacities: Mapping[str, int] | Sequence[int],
    partitions: int,
    *,
    copies: int | None = None,
    speeds: Sequence[Fraction | int] | None = None,
    seed: int = 0,
) -> Design:
    """A placement with minimal total load (with `speeds`, minimal time) among those that respect
    `capacities`.

    Parameters
    ----------
    capacities : mapping of worker name to int, or sequence of int
        The number of partitions that each worker may store; numbers above `N` count as `N`. If it is a
        sequence, workers are named `w0`, `w1`, …
    partitions : int
        `N`; they are named `p0`, `p1`, …
    copies : int, optional
        The exact number of holders of every partition. Default: all capacities are used up, and holders are
        spread as evenly as the loads permit.
    speeds : sequence of K positive rationals, optional
        `b_k`, in vectors per unit of time, both ways: minimise the makespan of the uplink plus the time of
        the downlink (see `LinkTimes`) instead of the loads.
    seed : int
        The seed of random choices; the same arguments give the same design.

    Raises
    ------
    PlacementError
        There is no worker or no partition; a capacity is negative; the capacities cannot hold every partition
        once (or `copies` times); or `copies` is outside 1…K.
    UsageError
        There are not as many speeds as workers, or a speed is not positive.
    """
    partitions, seed = counted("partitions", partitions), counted("seed", seed, 0)
    names, m = checked_capacities(capacities, partitions)
    total = checked_copies(m, partitions, copies)
    b = None if speeds is None else _checked_speeds(speeds, len(names))
    even = sizes_of_least_load(m, total)
    sizes = even if b is None else sizes_of_least_time(m, total, partitions, b)
    uplink_bound = least_uplink_load(len(m), total, partitions, min(even))
    target = uplink_bound
    if b is not None:
        target = max(uplink_bound / sum(b), least_uplink_time(m, b, partitions))
    trial = _search(names, partitions, sizes, b, target, even=copies is not None, seed=seed)
    times = None
    if b is not None and copies is not None:
        trial = _faster(trial, m, b, copies, target, seed)
        sizes = tuple(map(len, trial.placement.stored))
    if b is not None:
        shortest = sizes_of_least_time(m, total, partitions, b, shares=1)
        waits = (downlink_time(each, b, partitions) for each in (sizes, shortest))
        times = LinkTimes(trial.uplink, target, *waits)
    return Design(
        trial.placement,
        trial.rates,
        sum(trial.rates, Fraction(0)),
        Fraction(downlink_bound(trial.placement)),
        uplink_bound,
        Fraction(partitions - min(even)),
        times,
    )


@dataclass(frozen=True)
class TradeOff:
    """The cost of a number of copies in storage and computation, and the traffic that remains.

    Attributes
    ----------
    copies : int
        Holders of every partition.
    storage : int
        The most partitions that a worker stores.
    computation : int
        Local updates computed in a round by all workers together, `N·copies`.
    uplink_load : Fraction
        The load of `relay`, in vectors.
    uplink_bound : Fraction
        A lower bound of `uplink_load` over all placements with this storage and these copies.
    downlink_load : Fraction
        The load of `relay` as a broadcast, in vectors; no placement with this storage needs less.
    uncoded_uplink, uncoded_downlink : int
        The loads of `uncoded`, N: every update goes up once and down once, also if all workers store it.
    unicast_downlink : int
        `Σ_k (N − |M_k|)`: the downlink without multicast, coded or not.
    """

    copies: int
    storage: int
    computation: int
    uplink_load: Fraction
    uplink_bound: Fraction
    downlink_load: Fraction
    uncoded_uplink: int
    uncoded_downlink: int
    unicast_downlink: int


def trade_off(
    workers: int, partitions: int, copies: Iterable[int] | None = None, *, seed: int = 0
) -> list[TradeOff]:
    """Storage and computation against traffic: a design for each number of `copies`, on equal workers.

    Parameters
    ----------
    workers, partitions : int
        `K` and `N`.
    copies : iterable of int, optional
        Default: 1 to `K`.
    seed : int
        As in `design_placement`.

    Raises
    ------
    PlacementError
        `workers` or `partitions` is below 1, or a number of copies outside 1…K.
    """
    workers, partitions = counted("workers", workers), counted("partitions", partitions)
    rows = []
    for each in range(1, workers + 1) if copies is None else listed("copies", copies):
        c = counted("copies", each)
        storage = -(-partitions * c // workers)
        design = design_placement([storage] * workers, partitions, copies=c, seed=seed)
        rows.append(
            TradeOff(
                copies=c,
                storage=storage,
                computation=partitions * c,
                uplink_load=design.uplink_load,
                uplink_bound=design.uplink_bound,
                downlink_load=design.downlink_load,
                uncoded_uplink=partitions,
                uncoded_downlink=partitions,
                unicast_downlink=partitions * (workers - c),
            )
        )
    return rows


def checked_capacities(
    capacities: Mapping[str, int] | Sequence[int], N: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the workers, and the part of its capacity that each can use."""
    if not isinstance(capacities, Mapping):
        given = listed("capacities", capacities)
        capacities = {f"w{k}": capacity for k, capacity in enumerate(given)}
    if not capacities:
        raise PlacementError("capacities", "must be given for at least one worker", {})
    m = tuple(
        min(counted(f"capacity of worker {worker!r}", capacity, 0), N)
        for worker, capacity in capacities.items()
    )
    if sum(m) < N:
        raise PlacementError("capacities", f"must hold each of {N} partitions once, so sum to {N}", list(m))
    return tuple(capacities), m


def checked_copies(m: Sequence[int], N: int, copies: int | None) -> int:
    """The total number of stored copies of partitions."""
    if copies is None:
        return sum(m)
    if not 1 <= counted("copies", copies, 0) <= len(m):
        raise PlacementError("copies", f"must lie between 1 and the number of workers ({len(m)})", copies)
    if sum(m) < N * copies:
        raise PlacementError(
            "capacities",
            f"must hold {copies} copies of {N} partitions, so sum to {N * copies}, none above {N} counted",
            list(m),
        )
    return N * copies


def _checked_speeds(speeds: Sequence[Fraction | int], K: int) -> tuple[Fraction, ...]:
    try:
        b = tuple(rational("speeds", speed) for speed in speeds)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UsageError("speeds", "must be rational numbers", speeds) from error
    if len(b) != K:
        raise UsageError("speeds", f"must be as many as workers ({K})", speeds)
    if min(b) <= 0:
        raise UsageError("speeds", "must be positive", [str(speed) for speed in b])
    return b


def least_uplink_load(K: int, total: int, N: int, smallest: int) -> Fraction:
    """The lower bound of `R_CO` for `total` copies, if the smallest store holds at most `smallest`."""
    if K == 1:
        return Fraction(0)
    if total - N < K - 1:
        return Fraction(N)
    return N - min(Fraction(total - N, K - 1), Fraction(smallest))


def _search(
    names: Sequence[str],
    N: int,
    sizes: Sequence[int],
    b: Sequence[Fraction] | None,
    target: Fraction,
    *,
    even: bool,
    seed: int,
) -> _Trial:
    """The best stores of these sizes that the search finds; `even` keeps numbers of holders within one."""
    rng = random.Random(seed)
    stored = _first_stores(sizes, N, b, rng)
    trial = _Trial.of(names, N, stored, b)
    for propose in (swap,) if even else (swap, replacement):
        for _ in range(min(MOST_STEPS, EFFORT // sum(sizes))):
            if trial.uplink == target or not (changes := propose(stored, trial.blocks, rng)):
                break
            apply(stored, changes)
            changed = _Trial.of(names, N, stored, b)
            if changed.key <= trial.key:
                trial = changed
            else:
                undo(stored, changes)
    return trial


def _faster(
    trial: _Trial, m: Sequence[int], b: Sequence[Fraction], copies: int, target: Fraction, seed: int
) -> _Trial:
    """A placement whose uplink and downlink together take less time; sizes of stores may change.

    If there are few placements, all are tried; otherwise moves of copies to workers with room.
    """
    names, N = trial.placement.workers, len(trial.placement.partitions)

    def time(of: _Trial) -> Fraction:
        return of.uplink + downlink_time(tuple(map(len, of.placement.stored)), b, N)

    def uplink_time(stored: Stores) -> Fraction:
        return _Trial.of(names, N, stored, b).uplink

    if time(trial) == target + downlink_time(sizes_of_least_time(m, N * copies, N, b, shares=1), b, N):
        return trial
    if (stored := fastest_stores(m, N, copies, b, uplink_time)) is not None:
        return min(trial, _Trial.of(names, N, stored, b), key=time)
    stored, rng = [set(store) for store in trial.placement.stored], random.Random(seed)
    for _ in range(min(MOST_STEPS, EFFORT // (N * copies))):
        if (changed := move(stored, m, rng)) is None:
            break
        moved = _Trial.of(names, N, changed, b)
        if time(moved) <= time(trial):
            trial, stored = moved, changed
    return trial


@dataclass(frozen=True)
class _Trial:
    """A placement that the search has measured.

    The search minimises `uplink`, the load or the makespan. The `blocks` are the groups of workers that limit
    it (see `swaps`). `key` orders trials: of two with the same load, the one with fewer blocks is closer to
    an improvement.
    """

    placement: Placement
    rates: tuple[Fraction, ...]
    uplink: Fraction
    key: tuple[Fraction, Fraction]
    blocks: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str], N: int, stored: Stores, b: Sequence[Fraction] | None) -> _Trial:
        placement = Placement(
            {name: [f"p{n}" for n in store] for name, store in zip(names, stored, strict=True)},
            [f"p{n}" for n in range(N)],
        )
        if b is None:
            least = uplink_optimum(placement)
            key = (least.load, Fraction(len(least.certificate)))
            return cls(placement, least.rates, least.load, key, least.certificate)
        fastest = fastest_rates(placement, b)
        others = tuple(k for k in range(len(names)) if k not in fastest.certificate)
        key = (fastest.time, sum(fastest.rates, Fraction(0)))
        return cls(placement, fastest.rates, fastest.time, key, (others,))


def _first_stores(sizes: Sequence[int], N: int, b: Sequence[Fraction] | None, rng: random.Random) -> Stores:
    if b is None:
        return cyclic_stores(sizes, N) or even_stores(sizes, N, rng, range(len(sizes)))
    # The fastest workers choose first. Slow ones then store partitions that others hold, too.
    return even_stores(sizes, N, rng, sorted(range(len(sizes)), key=lambda k: -b[k]))
