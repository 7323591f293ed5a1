"""Covering programs: the fewest uplink rows such that groups of workers send as many as demanded.

    minimise  Σ_k R_k   subject to   Σ_{k∈S∖B} R_k ≥ f(S)  for the given S and every B of s workers,   R ≥ 0

`f` maps sets of workers to whole numbers of vectors; `s` is the number of silent workers. Rates are whole
numbers of packets, that is, multiples of 1/P of a vector.

The worst `B` holds the `s` largest rates of `S`, and their sum is the least value of
`s·τ + Σ_{k∈S} max(R_k − τ, 0)` over `τ`. So one variable `τ` and |S| excesses stand for all `B` at once.

SciPy is loaded only when a program is solved: a worker that builds a plan again never solves one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats

Demands = Mapping[frozenset[int], int]

# The most nodes × variables² of an integer program: some ten seconds. Unlike a limit in seconds, this ends
# the search at the same node on every machine.
SEARCH_EFFORT = 20_000_000

# The most nodes of the search tree of an integer program, even if it is small.
MOST_NODES = 2_000

# The largest denominator of a dual variable. A solver's float is replaced by the nearest fraction with at
# most this denominator.
_DUAL_DENOMINATOR = 100_000

# The largest denominator of a bound. A bound with a larger one is rounded down, so that it stays readable.
_LARGEST_DENOMINATOR = 1_000_000


class Constraints:
    """Linear constraints `Σ coefficient · variable ≥ least`, collected one by one."""

    def __init__(self) -> None:
        self._data: list[float] = []
        self._rows: list[int] = []
        self._columns: list[int] = []
        self.least: list[float] = []

    def add(self, terms: Iterable[tuple[int, float]], least: float) -> None:
        """Append one constraint; a variable may occur in several terms, which add up."""
        for variable, coefficient in terms:
            self._data.append(coefficient)
            self._rows.append(len(self.least))
            self._columns.append(variable)
        self.least.append(least)

    def matrix(self, variables: int) -> Any:
        """The coefficients as a sparse array of SciPy: (constraints, variables)."""
        from scipy.sparse import csr_array

        # Before version 1.13 SciPy's solver took indices of 32 bits only.
        places = np.array([self._rows, self._columns], np.int32)
        return csr_array((self._data, tuple(places)), shape=(len(self.least), variables))


@dataclass(frozen=True)
class IntegerSolution:
    """Values of the variables, and a proven lower bound of the objective (rounded up to a whole number)."""

    values: NDArray[np.int64]
    proven: int
    optimal: bool


def minimise(costs: Floats, constraints: Constraints, upper: Floats) -> IntegerSolution | None:
    """Minimise `costs @ x` over whole numbers 0 ≤ x ≤ upper under `constraints`; None if no x was found.

    The search ends after `SEARCH_EFFORT`, so the values need not be optimal: compare with `proven`.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    outcome = milp(
        costs,
        constraints=LinearConstraint(constraints.matrix(len(costs)), constraints.least, np.inf),
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, upper),
        options={
            "node_limit": max(2, min(MOST_NODES, SEARCH_EFFORT // len(costs) ** 2)),
            "mip_rel_gap": 0.0,
        },
    )
    if outcome.x is None:
        return None
    proven = outcome.mip_dual_bound
    return IntegerSolution(
        values=np.rint(outcome.x).astype(np.int64),
        proven=int(np.ceil(proven - 1e-6)) if proven is not None and np.isfinite(proven) else 0,
        optimal=outcome.status == 0,
    )


def integer_cover(
    workers: int,
    demands: Demands,
    *,
    subpackets: int = 1,
    silent: int = 0,
    most: int | Sequence[int] | None = None,
    costs: Sequence[Fraction] | None = None,
) -> tuple[tuple[int, ...], int]:
    """Packets per worker with the smallest sum, and a proven lower bound of that sum (packets).

    With `costs`, both are of the cost, in units of 1/`scale_of(costs)`. `most` limits the packets of each
    worker; every single demand must be possible within this limit.
    """
    constraints, sets = _cover_constraints(workers, demands, subpackets, silent)
    variables = _variables(workers, sets, silent)
    largest = max(demands.values(), default=0) * subpackets
    # A rate above the largest demand is useless: if s workers are silent, another worker of S can replace it.
    upper = np.full(variables, float(largest))
    if most is not None:
        upper[: workers if isinstance(most, Sequence) else None] = most
    weights = _costs(workers, variables)
    if costs is not None:
        weights[:workers] = [float(cost * scale_of(costs)) for cost in costs]
    solution = minimise(weights, constraints, upper) if demands else None
    if solution is None:
        rates = [
            max((min(f * subpackets, int(upper[k])) for S, f in demands.items() if k in S), default=0)
            for k in range(workers)
        ]
        return tuple(rates), largest if costs is None else 0
    least = max(solution.proven, largest) if costs is None else solution.proven
    return tuple(int(rate) for rate in solution.values[:workers]), least


def scale_of(costs: Sequence[Fraction] | None) -> int:
    """The factor by which all costs become whole numbers."""
    return 1 if costs is None else math.lcm(*(cost.denominator for cost in costs))


def sampled_covers(
    workers: int,
    demands: Demands,
    total: int,
    most: Sequence[int],
    *,
    subpackets: int,
    silent: int,
    samples: int,
) -> list[tuple[int, ...]]:
    """Different vectors of packets per worker, `total` in all, that meet all demands; a few at random.

    `most` are the upper limits of the workers, and `samples` the most vectors that are drawn.
    """
    constraints, sets = _cover_constraints(workers, demands, subpackets, silent)
    variables = _variables(workers, sets, silent)
    for sign in (1.0, -1.0):
        constraints.add([(k, sign) for k in range(workers)], sign * total)
    upper = np.concatenate([np.array(most, dtype=np.float64), np.full(variables - workers, float(total))])
    rng, found = np.random.default_rng(total), dict[tuple[int, ...], None]()
    for _ in range(samples):
        costs = np.zeros(variables)
        costs[:workers] = rng.integers(0, 100, workers)
        solution = minimise(costs, constraints, upper)
        if solution is None:
            break
        found[tuple(int(rate) for rate in solution.values[:workers])] = None
    return list(found)


def fractional_cover(
    workers: int, demands: Demands, *, silent: int = 0, costs: Sequence[Fraction] | None = None
) -> tuple[Floats, Fraction]:
    """Rates (vectors, float) of the linear program, and its value as an exact fraction.

    With `costs`, more than 0, the value is `Σ_k c_k R_k`.

    The fraction is proven: it is the value of a rational dual solution that is made exactly feasible, and
    hence a lower bound for any last digits of the solver. (Where its denominator would exceed a million, it
    is rounded down to millionths.)
    """
    from scipy.optimize import linprog

    if not demands:
        return np.zeros(workers), Fraction(0)
    constraints, sets = _cover_constraints(workers, demands, 1, silent)
    variables = _variables(workers, sets, silent)
    limits = [Fraction(1)] * workers if costs is None else list(costs)
    weights = _costs(workers, variables)
    weights[:workers] = [float(limit) for limit in limits]
    outcome = linprog(
        weights,
        A_ub=-constraints.matrix(variables),
        b_ub=-np.array(constraints.least),
        bounds=(0, None),
        method="highs",
    )
    dual = iter(
        [
            Fraction(max(0.0, -float(y))).limit_denominator(_DUAL_DENOMINATOR)
            for y in outcome.ineqlin.marginals
        ]
    )
    prices, value = [Fraction(0)] * workers, Fraction(0)
    for S in sets:
        weight = next(dual)
        relief = [min(next(dual), weight) for _ in S] if silent else [Fraction(0)] * len(S)
        # The relief may sum to at most `s` times the weight, because at most s workers of S are silent.
        share = min(Fraction(1), silent * weight / total) if (total := sum(relief)) else Fraction(0)
        value += weight * demands[frozenset(S)]
        for k, less in zip(S, relief, strict=True):
            prices[k] += weight - share * less
    value /= max(Fraction(1), *(price / limit for price, limit in zip(prices, limits, strict=True)))
    if value.denominator > _LARGEST_DENOMINATOR:
        value = Fraction(math.floor(value * _LARGEST_DENOMINATOR), _LARGEST_DENOMINATOR)
    return np.asarray(outcome.x[:workers], dtype=np.float64), value


def proven_cover(
    workers: int, demands: Demands, costs: Sequence[Fraction] | None = None
) -> tuple[Floats, dict[frozenset[int], Fraction]]:
    """Rates of the linear program without silent workers, and exact multipliers that prove the bound.

    The multipliers `y_S >= 0` sum to at most `c_k` over the sets of worker `k` (`costs`, by default 1), so
    `Σ_S y_S f(S)` is a lower bound of `Σ_k c_k R_k`.
    """
    from scipy.optimize import linprog

    prices = [Fraction(1)] * workers if costs is None else list(costs)
    if not demands:
        return np.zeros(workers), {}
    constraints, sets = _cover_constraints(workers, demands, 1, 0)
    outcome = linprog(
        np.array([float(price) for price in prices]),
        A_ub=-constraints.matrix(workers),
        b_ub=-np.array(constraints.least),
        bounds=(0, None),
        method="highs",
    )
    free = {k for k, price in enumerate(prices) if not price}
    weights = [
        Fraction(0)
        if free.intersection(S)
        else Fraction(max(0.0, -float(y))).limit_denominator(_DUAL_DENOMINATOR)
        for S, y in zip(sets, outcome.ineqlin.marginals, strict=True)
    ]
    sums = [
        sum((y for S, y in zip(sets, weights, strict=True) if k in S), Fraction(0)) for k in range(workers)
    ]
    scale = max([Fraction(1), *(total / price for total, price in zip(sums, prices, strict=True) if price)])
    multipliers = {frozenset(S): y / scale for S, y in zip(sets, weights, strict=True) if y}
    return np.asarray(outcome.x, dtype=np.float64), multipliers


def _cover_constraints(
    workers: int, demands: Demands, subpackets: int, silent: int
) -> tuple[Constraints, list[tuple[int, ...]]]:
    constraints, sets = Constraints(), [tuple(sorted(S)) for S in demands]
    tau = workers
    for S in sets:
        least = demands[frozenset(S)] * subpackets
        if not silent:
            constraints.add([(k, 1.0) for k in S], least)
            continue
        excess = range(tau + 1, tau + 1 + len(S))
        constraints.add([*((k, 1.0) for k in S), (tau, -float(silent)), *((e, -1.0) for e in excess)], least)
        for k, e in zip(S, excess, strict=True):
            constraints.add([(e, 1.0), (tau, 1.0), (k, -1.0)], 0.0)
        tau += 1 + len(S)
    return constraints, sets


def _variables(workers: int, sets: list[tuple[int, ...]], silent: int) -> int:
    return workers + (sum(1 + len(S) for S in sets) if silent else 0)


def _costs(workers: int, variables: int) -> Floats:
    return np.concatenate([np.ones(workers), np.zeros(variables - workers)])
