"""Linear targets without silent workers: checked uplink matrices from pieces of flats.

Worker `k` gets a random basis `U_k` of its pieces, and the coefficients of partition `n` solve
`Σ_{k∈H_n} U_k w_{kn} = A_n`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import CodingError
from asyncdmtl.field import real
from asyncdmtl.plan.linear.pieces import Flat, PieceProgram, Pieces, assign_everything, fill_everything
from asyncdmtl.plan.linear.targets import Bound, Need, Target, packet_columns

# A unit vector counts as reached if a solution is at most this far from it.
RESIDUAL = 1e-9

# The most solutions of the integer program that are drawn and corrected.
_ROUNDS = 10

# The most corrections that are added to the program before it is solved again.
_CORRECTIONS_PER_ROUND = 12


def find_pieces(
    target: Target, flats: Sequence[Flat], bound: Bound, rng: np.random.Generator, *, subpackets: int
) -> Pieces:
    """Pieces that reach every need, with the smallest sum that the search finds."""
    program = PieceProgram(target, flats, bound, subpackets=subpackets)
    best = assign_everything(target, subpackets=subpackets)
    filled = repair(
        target, flats, fill_everything(target, flats, subpackets=subpackets), rng, subpackets=subpackets
    )
    best = min(best, filled, key=total)
    pieces = program.solve()
    for _ in range(_ROUNDS):
        if pieces is None or total(pieces) >= total(best):
            break
        U = draw_subspaces(target, flats, pieces, rng, subpackets=subpackets)
        missed = list(unreached(target, U, subpackets))
        best = min(best, repair(target, flats, pieces, rng, subpackets=subpackets), key=total)
        if total(best) <= bound.packets:
            break
        for line, H in missed[:_CORRECTIONS_PER_ROUND]:
            program.exclude(line, H, _span(U, H))
        pieces = program.solve()
    return best


def total(pieces: Pieces) -> int:
    """The total number of packets."""
    return sum(pieces.values())


def repair(
    target: Target, flats: Sequence[Flat], pieces: Pieces, rng: np.random.Generator, *, subpackets: int
) -> Pieces:
    """The pieces and, for every need that they miss, the whole line at one holder."""
    mended = dict(pieces)
    while True:
        U = draw_subspaces(target, flats, mended, rng, subpackets=subpackets)
        missed = list(unreached(target, U, subpackets))
        if not missed:
            return mended
        for line, H in missed:
            if not any(mended.get((k, line), 0) == subpackets for k in H):
                # Choose the holder with the most open needs, since the line at this worker may meet several
                # of them.
                mended[max(sorted(H), key=lambda k: sum(k in other for _, other in missed)), line] = (
                    subpackets
                )


def draw_subspaces(
    target: Target, flats: Sequence[Flat], pieces: Pieces, rng: np.random.Generator, *, subpackets: int
) -> list[Floats]:
    """For each worker, an orthonormal basis of random subspaces of its flats: (r·P, R_k)."""
    parts: list[list[Floats]] = [[] for _ in target.placement.workers]
    for (k, f), dimension in sorted(pieces.items()):
        space = real.kron_identity(flats[f].basis, subpackets)
        parts[k].append(space @ real.random_orthonormal(rng, space.shape[1], dimension))
    nothing = np.zeros((target.rank * subpackets, 0))
    return [real.column_basis(np.hstack([nothing, *part])) for part in parts]


def unreached(target: Target, U: Sequence[Floats], subpackets: int) -> Iterator[Need]:
    """The needs whose line lies outside `Σ_{k∈H} U_k`."""
    by_holders = defaultdict(list)
    for line, H in target.needs:
        by_holders[H].append(line)
    for H, lines in by_holders.items():
        wanted = real.kron_identity(target.lines[:, lines], subpackets)
        reached = _span(U, H)
        left = np.linalg.norm(wanted - reached @ (reached.T @ wanted), axis=0).reshape(-1, subpackets)
        yield from ((line, H) for line, miss in zip(lines, left.max(axis=1), strict=True) if miss > RESIDUAL)


def uplink_from_subspaces(target: Target, U: Sequence[Floats], subpackets: int) -> tuple[list[Floats], float]:
    """Uplink matrices (R_k·P, N·P) and the worst condition number among the solves.

    Raises
    ------
    CodingError
        The holders of some column do not reach it.
    """
    N, P = len(target.placement.partitions), subpackets
    W = [np.zeros((basis.shape[1], N * P)) for basis in U]
    condition = 1.0
    for H, partitions in target.partitions_of_holders.items():
        columns = packet_columns(partitions, P)
        wanted = real.kron_identity(target.columns[:, partitions], P)
        system = np.hstack([U[k] for k in H])
        coefficients = real.solve(system, wanted)
        if np.any(np.linalg.norm(system @ coefficients - wanted, axis=0) > RESIDUAL):
            raise CodingError(f"workers {list(H)} do not reach every column of the target that they hold")
        condition = max(condition, real.condition_number(system))
        start = 0
        for k in H:
            W[k][:, columns] = coefficients[start : start + U[k].shape[1]]
            start += U[k].shape[1]
    return W, condition


def _span(U: Sequence[Floats], H: frozenset[int]) -> Floats:
    return real.column_basis(np.hstack([U[k] for k in sorted(H)]))
