"""The job's own lower bound of the uplink, for any scheme that gives workers the aggregate of every task.

A worker needs `z_t` of every task, but not the single updates, and a worker that stores a task whole computes
`z_t` itself. So a cut counts tasks instead of partitions: for every non-empty proper subset `S` of the
workers,

    Σ_{k∈S} R_k >= ex_job(S) = |{t : some partition of t is held by workers of S only}|

since the workers outside `S` cannot compute these `z_t` from the partitions that they store, and each is as
long as a vector (docs/theory.md, section 3). If the server needs the aggregates, `S` may be the set of all
workers, too. If some workers want nothing, a worker that wants all must be outside of `S` (section 7a). The
smallest `Σ_k R_k` under these constraints is a linear program, and multipliers on cuts prove its value.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.covering import Constraints, fractional_cover, minimise, proven_cover
from asyncdmtl.plan.rates.cut_search import CutSearch
from asyncdmtl.plan.rates.demands import Demands
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.rates.stragglers import silent_rates
from asyncdmtl.plan.units import whole_holders

# The most workers for which every cut is listed, so that the bound is the exact value of the linear program.
ALL_CUTS_WORKERS = 10

# The most searches for violated cuts if there are more workers; each is followed by a linear program.
_SEARCHES = 12

# The most sets of holders, in all tasks, for which an integer program then looks for a cut that was missed.
_PROVEN_SETS = 60

# The most such integer programs.
_PROOFS = 8

Cut = tuple[int, ...]


@dataclass(frozen=True)
class JobBound:
    """A lower bound on the uplink load of the job, and its proof.

    Attributes
    ----------
    load : Fraction
        The bound, in vectors.
    certificate : tuple of (cut, multiplier) pairs
        The proof, whose `certified_load` is `load`.
    complete : bool
        Whether `load` is the largest bound that cuts prove. It is False if only some cuts were searched.
    """

    load: Fraction
    certificate: tuple[tuple[Cut, Fraction], ...]
    complete: bool


def exclusive_tasks(placement: Placement, tasks: Sequence[int], workers: Iterable[int]) -> int:
    """`ex_job(S)`: the number of tasks with a partition that only `workers` store."""
    inside = set(workers)
    return len({t for t, H in zip(tasks, placement.holders, strict=True) if inside.issuperset(H)})


def certified_load(
    placement: Placement,
    tasks: Sequence[int],
    certificate: Sequence[tuple[Sequence[int], Fraction]],
    *,
    at_server: bool = False,
    helpers: Sequence[int] = (),
) -> Fraction:
    """The lower bound on the uplink load that multipliers on cuts prove: `Σ_S y_S ex_job(S)`.

    `Σ_{S∋k} y_S <= 1` for every worker makes `Σ_k R_k >= Σ_S y_S Σ_{k∈S} R_k >= Σ_S y_S ex_job(S)`.

    Parameters
    ----------
    tasks : sequence of int, length N
    certificate : sequence of (cut, multiplier) pairs
    at_server : bool
        Whether the server needs the aggregates, so that all workers together are a cut, too.
    helpers : sequence of int
        The workers that want nothing. Some other worker must be outside of each cut.

    Raises
    ------
    UsageError
        A multiplier is negative, a set of workers is no cut, or the multipliers of a worker's cuts sum to
        more than 1.
    """
    K = len(placement.workers)
    demanders = set(range(K)) - set(helpers)
    for cut, multiplier in certificate:
        proper = at_server or not demanders <= set(cut)
        if multiplier < 0 or not cut or not proper or not set(cut) <= set(range(K)):
            raise UsageError("certificate", "must have cuts with multipliers from 0 on", (cut, multiplier))
    for k in range(K):
        if sum(y for cut, y in certificate if k in cut) > 1:
            raise UsageError("certificate", f"must not sum to more than 1 at worker {k}", certificate)
    return sum((y * exclusive_tasks(placement, tasks, cut) for cut, y in certificate), Fraction(0))


def job_downlink_bound(placement: Placement, tasks: Sequence[int], helpers: Sequence[int] = ()) -> int:
    """`max_k (T − c_k)`, the smallest broadcast load: worker `k` wants all and stores `c_k` whole tasks."""
    stored = [0] * len(placement.workers)
    for holders in whole_holders(placement, tasks):
        for k in holders:
            stored[k] += 1
    return max(tasks) + 1 - min(count for k, count in enumerate(stored) if k not in set(helpers))


def job_bound(
    placement: Placement, tasks: Sequence[int], *, at_server: bool = False, helpers: Sequence[int] = ()
) -> JobBound:
    """The job's lower bound on the uplink load.

    Parameters
    ----------
    placement : Placement
    tasks : sequence of int, length N
        The task of each partition, from 0 without gaps.
    at_server : bool
        Whether the server needs every aggregate; default: every worker but the helpers does.
    helpers : sequence of int
        The workers that want nothing (docs/theory.md, section 7a).
    """
    return _job_bound(placement, tuple(tasks), at_server, tuple(helpers))


# A plan, its comparison with other plans and its report ask for the same bounds.
@lru_cache(maxsize=8)
def _job_bound(
    placement: Placement, tasks: tuple[int, ...], at_server: bool, helpers: tuple[int, ...]
) -> JobBound:
    K = len(placement.workers)
    everyone = frozenset(range(K))
    if K == 1 and not at_server:
        return JobBound(Fraction(0), (), True)
    demands = _Demands(placement, tasks, everyone.difference(() if at_server else helpers))
    if demands.single:
        # All holders of a task's rarest partition store it whole.
        if at_server:
            T = max(tasks) + 1
            return JobBound(Fraction(T), ((tuple(range(K)), Fraction(1)),), True)
        if helpers:
            proof = [(frozenset(cut), y) for cut, y in Demands(demands.reduced, helpers).cheapest()[1]]
            return _proven(placement, tasks, proof, True, helpers=helpers)
        blocks = uplink_optimum(demands.reduced).certificate
        share = Fraction(1, max(1, len(blocks) - 1))
        return _proven(placement, tasks, [(everyone.difference(block), share) for block in blocks], True)
    if K <= ALL_CUTS_WORKERS:
        cuts, complete = demands.all_cuts(at_server), True
    else:
        cuts, complete = demands.searched_cuts(at_server)
    _, multipliers = proven_cover(K, cuts)
    found = [(cut, y) for cut, y in multipliers.items()]
    return _proven(placement, tasks, found, complete, at_server=at_server, helpers=helpers)


def job_bound_with_silent_workers(
    placement: Placement,
    tasks: Sequence[int],
    silent: int,
    *,
    at_server: bool = True,
    helpers: Sequence[int] = (),
) -> JobBound:
    """The job's bound if any `silent` workers may send nothing, without a certificate.

    Every cut holds for `S` without any `silent` of its workers (docs/theory.md, section 6). The server must
    decode or, if not `at_server`, every worker but the `helpers` must.
    """
    K = len(placement.workers)
    wanting = [k for k in range(K) if k not in set(helpers)]
    if len(set(tasks)) == len(tasks):
        wanted_by = None if at_server else wanting
        return JobBound(silent_rates(placement, silent, 1, wanted_by).bound, (), True)
    demands = _Demands(placement, tasks, frozenset(range(K) if at_server else wanting))
    if K <= ALL_CUTS_WORKERS:
        cuts, complete = demands.all_cuts(at_server=at_server), True
    else:
        cuts, complete = demands.searched_cuts(at_server=at_server)
    return JobBound(fractional_cover(K, cuts, silent=silent)[1], (), complete)


def _proven(
    placement: Placement,
    tasks: Sequence[int],
    proof: Sequence[tuple[frozenset[int], Fraction]],
    complete: bool,
    *,
    at_server: bool = False,
    helpers: Sequence[int] = (),
) -> JobBound:
    certificate = tuple(sorted((tuple(sorted(cut)), y) for cut, y in proof if y and cut))
    load = certified_load(placement, tasks, certificate, at_server=at_server, helpers=helpers)
    return JobBound(load, certificate, complete)


class _Demands:
    """The cuts of a job: for each task, the minimal sets of workers without which it cannot be computed.

    Each cut has one of the `demanders`, the workers that want all models, or the server outside of it.
    """

    def __init__(self, placement: Placement, tasks: Sequence[int], demanders: frozenset[int]) -> None:
        self.workers, self.demanders = len(placement.workers), demanders
        self.placement, self.tasks = placement, tasks
        sets: list[set[frozenset[int]]] = [set() for _ in range(max(tasks) + 1)]
        for task, H in zip(tasks, placement.holders, strict=True):
            sets[task].add(frozenset(H))
        self.needs = [[H for H in group if not any(other < H for other in group)] for group in sets]

    @property
    def single(self) -> bool:
        """Whether every task has one minimal set of workers, so that it counts as one partition."""
        return all(len(group) == 1 for group in self.needs)

    @property
    def reduced(self) -> Placement:
        """The placement of one partition for each task, if all are `single`."""
        held: list[list[str]] = [[] for _ in range(self.workers)]
        for task, (H,) in enumerate(self.needs):
            for k in H:
                held[k].append(str(task))
        return Placement(
            {str(k): names for k, names in enumerate(held)}, [str(t) for t in range(len(self.needs))]
        )

    def demand(self, S: frozenset[int]) -> int:
        """`ex_job(S)`."""
        return sum(any(H <= S for H in group) for group in self.needs)

    def all_cuts(self, at_server: bool) -> dict[frozenset[int], int]:
        """Every cut that demands more than each of its subsets."""
        K = self.workers
        bits = [[sum(1 << k for k in H) for H in group] for group in self.needs]
        subsets = np.arange(1 << K)
        counts = np.zeros(1 << K, dtype=np.int64)
        for group in bits:
            counts += np.any([subsets & H == H for H in group], axis=0)
        found = {}
        demanders = sum(1 << k for k in self.demanders)
        for S in range(1, 1 << K):
            if not at_server and S & demanders == demanders:
                continue
            less = [counts[S & ~(1 << k)] for k in range(K) if S >> k & 1]
            if counts[S] > max(less):
                found[frozenset(k for k in range(K) if S >> k & 1)] = int(counts[S])
        return found

    def searched_cuts(self, at_server: bool) -> tuple[dict[frozenset[int], int], bool]:
        """Cuts of single holder sets and of all workers but one, then cuts that the best rates violate."""
        K, everyone = self.workers, frozenset(range(self.workers))
        start = {H for group in self.needs for H in group} | {everyone - {k} for k in everyone}
        start |= {everyone} if at_server else set()
        start = {S for S in start if at_server or not self.demanders <= S}
        cuts = {S: demand for S in start if (demand := self.demand(S))}
        search = CutSearch(K, self.needs, () if at_server else self.demanders)
        rng = random.Random(K)
        for _ in range(_SEARCHES):
            rates, proof = proven_cover(K, cuts)
            drawn = [frozenset(k for k in everyone if rng.random() < 0.7) for _ in range(K)]
            starts = [S for S in [*sorted(proof, key=sorted), *drawn] if at_server or not self.demanders <= S]
            fresh = [S for S in search.violated(rates, starts) if S not in cuts]
            if not fresh:
                break
            cuts |= {S: self.demand(S) for S in fresh}
        if sum(map(len, self.needs)) > _PROVEN_SETS:
            return cuts, False
        for _ in range(_PROOFS):
            rates, _ = proven_cover(K, cuts)
            missed, certain = self._violated(rates, at_server)
            if missed is None:
                return cuts, certain
            if missed in cuts:
                break
            cuts[missed] = self.demand(missed)
        return cuts, False

    def _violated(self, rates: Floats, at_server: bool) -> tuple[frozenset[int] | None, bool]:
        """The cut whose rates are farthest below its demand: an integer program over workers and tasks."""
        K, T = self.workers, len(self.needs)
        constraints = Constraints()
        need = K + T
        for task, group in enumerate(self.needs):
            chosen = range(need, need + len(group))
            need += len(group)
            for variable, H in zip(chosen, group, strict=True):
                constraints.add([*((k, 1.0) for k in H), (variable, -float(len(H)))], 0.0)
            constraints.add([*((variable, 1.0) for variable in chosen), (K + task, -1.0)], 0.0)
        if not at_server:
            constraints.add([(k, -1.0) for k in sorted(self.demanders)], 1.0 - len(self.demanders))
        costs = np.concatenate([rates, -np.ones(T), np.zeros(need - K - T)])
        solution = minimise(costs, constraints, np.ones(need))
        if solution is None:
            return None, False
        if float(costs @ solution.values) > -1e-6:
            return None, solution.optimal
        return frozenset(int(k) for k in np.flatnonzero(solution.values[:K])), True
