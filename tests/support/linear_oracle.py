"""Brute force for linear targets and silent workers: every subset, exact fractions, no solver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations

Demands = Mapping[frozenset[int], int]


def exact_rank(rows: Sequence[Sequence[int]]) -> int:
    """Rank of a matrix of whole numbers, by elimination with fractions."""
    left = [[Fraction(x) for x in row] for row in rows]
    rank = 0
    for column in range(len(left[0]) if left else 0):
        pivot = next((i for i in range(rank, len(left)) if left[i][column]), None)
        if pivot is None:
            continue
        left[rank], left[pivot] = left[pivot], left[rank]
        for i in range(rank + 1, len(left)):
            factor = left[i][column] / left[rank][column]
            left[i] = [x - factor * y for x, y in zip(left[i], left[rank], strict=True)]
        rank += 1
    return rank


def restricted_rank(target: Sequence[Sequence[int]], columns: Sequence[int]) -> int:
    return exact_rank([[row[n] for n in columns] for row in target]) if columns else 0


def subsets(workers: int, least: int = 0) -> Iterator[frozenset[int]]:
    for size in range(least, workers + 1):
        yield from (frozenset(S) for S in combinations(range(workers), size))


def linear_demands(
    holders: Sequence[Sequence[int]], workers: int, target: Sequence[Sequence[int]], silent: int
) -> dict[frozenset[int], int]:
    """A mapping of S without B to the rank of the columns that only S holds, for all S and s workers B."""
    demands: dict[frozenset[int], int] = {}
    for S in subsets(workers):
        rank = restricted_rank(target, [n for n, H in enumerate(holders) if S.issuperset(H)])
        for B in combinations(range(workers), silent):
            rest = S.difference(B)
            demands[rest] = max(demands.get(rest, 0), rank)
    return {S: rank for S, rank in demands.items() if rank}


def central_demands(holders: Sequence[Sequence[int]], workers: int, silent: int) -> dict[frozenset[int], int]:
    """For all responders and sets J of partitions, a mapping of the responders that hold one of J to |J|."""
    demands: dict[frozenset[int], int] = {}
    for A in combinations(range(workers), workers - silent):
        for J in subsets(len(holders), 1):
            able = frozenset(k for n in J for k in holders[n]).intersection(A)
            demands[able] = max(demands.get(able, 0), len(J))
    return demands


def met(rates: Sequence[Fraction] | Sequence[int], demands: Demands, subpackets: int = 1) -> bool:
    return all(sum(rates[k] for k in S) >= demand * subpackets for S, demand in demands.items())


def integer_minimum(workers: int, demands: Demands, subpackets: int = 1) -> int:
    """The smallest sum of whole packets that meets all demands, by trying every rate vector of each sum."""
    total = max(demands.values(), default=0) * subpackets
    while not any(met(rates, demands, subpackets) for rates in _rates(workers, total)):
        total += 1
    return total


def fractional_minimum(workers: int, demands: Demands) -> Fraction:
    """The smallest sum of real rates, by trying every vertex of the polyhedron."""
    constraints = [([int(k in S) for k in range(workers)], demand) for S, demand in demands.items()]
    constraints += [([int(k == i) for k in range(workers)], 0) for i in range(workers)]
    sums = []
    for chosen in combinations(constraints, workers):
        vertex = _solve([row for row, _ in chosen], [least for _, least in chosen])
        if vertex is not None and min(vertex) >= 0 and met(vertex, demands):
            sums.append(sum(vertex, Fraction(0)))
    return min(sums)


def _rates(workers: int, total: int) -> Iterator[tuple[int, ...]]:
    if workers == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for others in _rates(workers - 1, total - first):
            yield (first, *others)


def _solve(matrix: Sequence[Sequence[int]], right: Sequence[int]) -> list[Fraction] | None:
    left = [[*map(Fraction, row), Fraction(b)] for row, b in zip(matrix, right, strict=True)]
    size = len(left)
    for column in range(size):
        pivot = next((i for i in range(column, size) if left[i][column]), None)
        if pivot is None:
            return None
        left[column], left[pivot] = left[pivot], left[column]
        left[column] = [x / left[column][column] for x in left[column]]
        for i in range(size):
            if i != column and (factor := left[i][column]):
                left[i] = [x - factor * y for x, y in zip(left[i], left[column], strict=True)]
    return [row[-1] for row in left]
