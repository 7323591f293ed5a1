"""Linear targets: the matrices of a plan. Of a few checked random draws, the best conditioned is taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import CodingError
from asyncdmtl.field import real
from asyncdmtl.plan.linear.erasure import codes_of_lines, find_codes, uplink_from_codes
from asyncdmtl.plan.linear.pieces import Flat, Pieces, assign_everything, candidate_flats
from asyncdmtl.plan.linear.subspaces import RESIDUAL, draw_subspaces, find_pieces, uplink_from_subspaces
from asyncdmtl.plan.linear.targets import Bound, Target

# The number of random draws of matrices, of which the best conditioned is taken.
_DRAWS = 6

# The most draws, if none of the first ones is conditioned well enough.
_MOST_DRAWS = 24

# The number of draws that are improved if none has a fair condition: each takes a second or so.
_CAREFUL_DRAWS = 2

# The largest condition number of a draw that is accepted after `_DRAWS` draws: it costs three of sixteen
# digits.
FAIR_CONDITION = 1e3

# A draw with a condition number below this is accepted at once: it costs two of sixteen digits.
_GOOD_CONDITION = 100.0


# A random draw of uplink matrices, with its condition number.
_Draw = Callable[[], tuple[list[Floats], float]]


def build_uplink(
    target: Target,
    bound: Bound,
    responders: Sequence[tuple[int, ...]],
    rng: np.random.Generator,
    P: int,
    silent: int,
) -> tuple[list[Floats], float]:
    """Uplink matrices (R_k·P, N·P), the best conditioned of a few draws."""
    # If the optimised choice fails in every draw, a choice that cannot fail is used.
    draws: list[_Draw] = []
    careful: list[_Draw] = []
    if silent:
        choices = (
            find_codes(target, bound, responders, rng, subpackets=P, silent=silent),
            codes_of_lines(target, subpackets=P, silent=silent),
        )
        for codes in choices:
            draws.append(partial(uplink_from_codes, target, codes, rng, subpackets=P))
            careful.append(
                partial(uplink_from_codes, target, codes, rng, subpackets=P, responders=responders)
            )
    else:
        flats = candidate_flats(target)
        pieces = find_pieces(target, flats, bound, rng, subpackets=P), assign_everything(target, subpackets=P)
        draws = [partial(_from_pieces, target, flats, choice, rng, P) for choice in pieces]
    for i, draw in enumerate(draws):
        best = _best_draw(target, responders, P, draw, None, _MOST_DRAWS)
        if careful and (best is None or best[1] > FAIR_CONDITION):
            best = _best_draw(target, responders, P, careful[i], best, _CAREFUL_DRAWS)
        if best is not None:
            return best
    raise CodingError(
        f"the target is too close to one of lower rank to decode it (residual above {RESIDUAL:g})"
    )


def _best_draw(
    target: Target,
    responders: Sequence[tuple[int, ...]],
    P: int,
    draw: _Draw,
    best: tuple[list[Floats], float] | None,
    most: int,
) -> tuple[list[Floats], float] | None:
    """The best conditioned of a few draws, `best` among them; None if every draw fails."""
    for attempt in range(most):
        if attempt >= _DRAWS and best is not None and best[1] <= FAIR_CONDITION:
            break
        try:
            drawn = checked_uplink(target, responders, P, *draw())
        except CodingError:
            continue
        if best is None or drawn[1] < best[1]:
            best = drawn
        if best[1] < _GOOD_CONDITION:
            break
    return best


def _from_pieces(
    target: Target, flats: Sequence[Flat], pieces: Pieces, rng: np.random.Generator, P: int
) -> tuple[list[Floats], float]:
    return uplink_from_subspaces(target, draw_subspaces(target, flats, pieces, rng, subpackets=P), P)


def checked_uplink(
    target: Target, responders: Sequence[tuple[int, ...]], P: int, W: list[Floats], condition: float
) -> tuple[list[Floats], float]:
    """Check that every set of responders can decode; return the rows, made orthonormal within each worker.

    Only the span of a worker's rows matters. Orthonormal rows lose no digits, and none is superfluous.
    """
    W = [_orthonormal_rows(matrix) for matrix in W]
    for key in responders:
        _, worst = solve_decoding(target.columns, [W[k] for k in key], P)
        condition = max(condition, worst)
    return W, condition


def _orthonormal_rows(matrix: Floats) -> Floats:
    return real.row_basis(real.unit_columns(matrix.T).T)


def solve_decoding(columns: Floats, W: Sequence[Floats], P: int) -> tuple[Floats, float]:
    """The D with `D · (W stacked) = columns ⊗ I_P`, and the condition number of the system."""
    stacked, wanted = np.vstack(W), real.kron_identity(columns, P)
    D = real.solve(stacked.T, wanted.T).T
    miss = np.linalg.norm(D @ stacked - wanted, axis=1)
    if np.any(miss > RESIDUAL * np.linalg.norm(wanted, axis=1)):
        raise CodingError("these rows do not determine the target")
    return np.ascontiguousarray(D), real.condition_number(stacked)


@dataclass(frozen=True, eq=False)
class Downlink:
    """The rows of the broadcast.

    Attributes
    ----------
    of_target : (R_down, C) float64
        The rows as combinations of `A·V`.
    of_updates : (R_down, N) float64
        The rows as combinations of updates.
    ranks : tuple of int
        The number of leading rows that each worker needs.
    condition, target_condition : float
        The worst condition number of the workers' systems, and that of `A` with scaled rows, which counts if
        the server computes the rows from `A·V`.
    """

    of_target: Floats
    of_updates: Floats
    ranks: tuple[int, ...]
    condition: float
    target_condition: float


def build_downlink(target: Target, rng: np.random.Generator, helpers: Collection[int] = ()) -> Downlink:
    """Random combinations of the row basis.

    For every worker, as many leading rows as its rank suffice; `helpers` want none. The best of a few draws
    is taken.
    """
    missing = [target.placement.missing(k) for k in range(len(target.placement.workers))]
    open_ = [
        real.column_basis(target.columns[:, () if k in helpers else columns])
        for k, columns in enumerate(missing)
    ]
    ranks = tuple(basis.shape[1] for basis in open_)
    best: tuple[Floats, float] | None = None
    for attempt in range(_MOST_DRAWS):
        if attempt >= _DRAWS and best is not None and best[1] <= FAIR_CONDITION:
            break
        Q = real.random_orthonormal(rng, max(ranks), target.rank)
        worst = max(real.condition_number(Q[:rank] @ basis) for rank, basis in zip(ranks, open_, strict=True))
        if best is None or worst < best[1]:
            best = Q, worst
        if best[1] < _GOOD_CONDITION:
            break
    assert best is not None
    lift = target.lift / target.row_scale
    inverse = real.solve(lift, np.eye(len(lift)))
    of_target, of_updates = (
        (best[0] @ inverse) / target.row_scale.T,
        best[0] @ (target.columns * target.scales),
    )
    return Downlink(of_target, of_updates, ranks, best[1], real.condition_number(lift))
