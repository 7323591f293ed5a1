"""Second derivatives of every task's loss, learned from how its gradient changed between rounds.

A pair is a step `s` of a task's model and the change `y` of its gradient: for a quadratic loss, `y = H s`.
Combinations of pairs are pairs too. So each pair, beginning with the newest, is first freed of what newer
pairs tell, until `yᵢᵀ sⱼ = 0`; then the update of BFGS by one pair leaves what it learned from the others.
For a quadratic loss, the metric is thus exact along all directions in the memory, and not along the newest
only, as in BFGS. On real data that takes a half to an eighth of the rounds of BFGS. References: Nocedal and
Wright, "Numerical Optimization", 2006, section 6.1; Gao and Goldfarb, "Block BFGS Methods", Optimization
Methods and Software 33(4), 2018.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.solving import positive_definite
from asyncdmtl.arithmetic.sums import norm, total
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.second_derivatives import LowRank, SecondDerivatives, Whole

# The pairs that are kept for each task: at least so many, and so many for each number of a model. As many as
# numbers make the metric exact; the newest are often too near to each other to be all of use.
_FEWEST_PAIRS, _PAIRS_A_NUMBER = 30, 1.5

# The most numbers of all pairs, by which long vectors have fewer: 32 MB.
_NUMBERS = 1 << 22

# The most numbers of all tasks' metrics as whole matrices: 8 MB. Solving with larger ones takes seconds in
# each round.
METRIC_NUMBERS = 1 << 20

# Couplings whose problems `coupled` solves with whole matrices only.
WITH_WHOLE_MATRICES = ("mean", "clustered")

# How often the share of newer pairs is removed from a pair.
_TIMES = 2

# A pair is of no use if newer pairs leave less than this share of its step.
_NEW = 1e-3

# The curvature that is added to that of every pair, as a share of the largest that is possible: a loss may be
# flat, as that of a task of one class is.
_LEAST = 1e-9

# Curvatures along a step must lie between half of that and this multiple of the largest that is possible.
# Beyond are those that come from rounding, or from second derivatives that changed between rounds.
_MOST = 4.0

# A column of a task whose mean square is below this share of the largest of any task counts as empty: it is
# scaled as in that task.
_EMPTY = 1e-24

# The smallest curvature that is assumed where nothing is known, and the one that is added to every metric so
# that rounding makes no eigenvalue negative; both as shares of the largest that is possible.
_UNKNOWN, _RIDGE = 1e-4, 1e-9

Pair = tuple[Floats, Floats, Floats, Floats, NDArray[np.bool_]]


def has_low_rank(coupling: str, tasks: int, d: int) -> bool:
    """Whether metrics are kept as what pairs tell, because whole matrices would be too large.

    Some couplings can be solved with whole matrices only (`coupled`).
    """
    return tasks * d * d > METRIC_NUMBERS and coupling not in WITH_WHOLE_MATRICES


def pairs_kept(tasks: int, d: int, *, low_rank: bool) -> int:
    """The most pairs in the memory, for models of `d` numbers."""
    useful = _FEWEST_PAIRS if low_rank else max(_FEWEST_PAIRS, int(_PAIRS_A_NUMBER * d))
    return max(2, min(useful, _NUMBERS // (2 * tasks * d or 1)))


class Secants:
    """The last pairs of all tasks, and the metric that they make.

    Pairs and metrics are kept for columns that are divided by their scales (`scale`), so that all shares here
    are of columns of one size.

    Parameters
    ----------
    bounds : (T,) float64 array
        The largest second derivative that each task's loss can have, above 0.
    first : (T, d) float64 array
        The diagonals of the metrics before there are pairs.
    coupled : int
        Numbers of a model before its free intercept, for which the metric begins as in `first`.
    curvature : float
        The largest second derivative of the loss by the score.
    low_rank : bool
        Whether the metric is made as matrices that are diagonal but for few directions.
    """

    def __init__(
        self, bounds: Floats, first: Floats, coupled: int, curvature: float, *, low_rank: bool = False
    ) -> None:
        self._given, self._coupled, self._curvature = (bounds, first), coupled, curvature
        self._has_low_rank = low_rank
        T, d = first.shape
        self._scales = np.ones((T, d))
        self._bound()
        # Steps and changes of gradients, the newest last; 0 where there is no pair.
        self._pairs = np.zeros((pairs_kept(T, d, low_rank=low_rank), 2, T, d))

    def scale(self, squares: Floats) -> None:
        """Take the roots of the mean squares (T, d) of all columns as scales, before there are pairs."""
        largest = squares.max(axis=0)
        used = np.where(squares > _EMPTY * largest, squares, np.where(largest > 0.0, largest, 1.0))
        self._scales = np.sqrt(used)
        self._bound()

    def add(self, s: Floats, y: Floats) -> None:
        """Remember a pair (T, d) each, in place of the oldest."""
        self._pairs = np.concatenate([self._pairs[1:], np.stack([s * self._scales, y / self._scales])[None]])

    def metric(self) -> SecondDerivatives:
        """The metrics of all tasks, as those of one data set."""
        if not self._has_low_rank:
            return Whole((self._metric() * (self._scales[:, :, None] * self._scales[:, None, :]))[None])
        found = self._low_rank()
        scaled = found.diagonal * np.square(self._scales), found.P * self._scales[:, :, None]
        return LowRank(*scaled, found.S)

    def _bound(self) -> None:
        """Set the bounds and the first diagonals, for scaled columns if there are scales.

        The largest second derivative is at most the sum of those along the columns, which have one size then;
        and at most that of the unscaled ones by the square of the smallest scale.
        """
        bounds, first = self._given
        scaled = (self._scales != 1.0).any()
        most = self._curvature * first.shape[1] if scaled else np.inf
        shrunk = np.square(self._scales.min(axis=1))
        self._bounds, self._first = (
            np.minimum(bounds / shrunk, most),
            np.minimum(first / shrunk[:, None], most),
        )
        if self._coupled < first.shape[1]:
            self._first[:, self._coupled :] = first[:, self._coupled :]

    def _metric(self) -> Floats:
        """Positive definite matrices (T, d, d) of scaled columns."""
        pairs, start = self._begun()
        d = start.shape[1]
        B: Floats = start[:, :, None] * np.eye(d)
        for s, y, sy, _, use in reversed(pairs):
            Bs = matmul(B, s[:, :, None])[:, :, 0]
            sBs = total(s * Bs, 1)
            use = use & (sBs > 0.0)
            up = np.where(use, 1.0, 0.0) / np.where(use, sy, 1.0)
            down = np.where(use, 1.0, 0.0) / np.where(use, sBs, 1.0)
            B += up[:, None, None] * y[:, :, None] * y[:, None, :]
            B -= down[:, None, None] * Bs[:, :, None] * Bs[:, None, :]
        B = 0.5 * (B + np.swapaxes(B, 1, 2)) + (_RIDGE * self._bounds)[:, None, None] * np.eye(d)
        return np.where(positive_definite(B)[:, None, None], B, self._first[:, :, None] * np.eye(d))

    def _low_rank(self) -> LowRank:
        """The same matrices as `_metric`, of which only what pairs tell is computed."""
        pairs, start = self._begun()
        T, d = start.shape
        P, signs = np.zeros((T, d, 2 * len(pairs))), np.zeros((T, 2 * len(pairs)))
        for m, (s, y, sy, _, use) in enumerate(reversed(pairs)):
            known = signs[:, : 2 * m] * matmul(s[:, None], P[:, :, : 2 * m])[:, 0]
            Bs = start * s + matmul(P[:, :, : 2 * m], known[:, :, None])[:, :, 0]
            sBs = total(s * Bs, 1)
            use = use & (sBs > 0.0)
            for at, (vector, size, sign) in enumerate(((y, sy, 1.0), (Bs, sBs, -1.0))):
                share = np.where(use, 1.0, 0.0) / np.sqrt(np.where(use, size, 1.0))
                P[:, :, 2 * m + at] = share[:, None] * vector
                signs[:, 2 * m + at] = np.where(use, sign, 0.0)
        diagonal = start + (_RIDGE * self._bounds)[:, None]
        S = signs[:, :, None] * np.eye(signs.shape[1])
        found = LowRank(diagonal[None], P[None], S[None])
        firm = found.positive()[..., None, None]
        return LowRank(np.where(firm[..., 0], diagonal, self._first), np.where(firm, P, 0.0), found.S)

    def _begun(self) -> tuple[list[Pair], Floats]:
        """Conjugate pairs, and the diagonals (T, d) of the metrics without them."""
        pairs, start = self._conjugate(), self._first.copy()
        if pairs:
            # Directions of which nothing is known count as no steeper than the flattest known one.
            flattest = np.min([np.where(use, sy / ss, np.inf) for _, _, sy, ss, use in pairs], axis=0)
            known = np.isfinite(flattest)
            start[known, : self._coupled] = np.maximum(flattest, _UNKNOWN * self._bounds)[known, None]
        return pairs, start

    def state(self) -> Floats:
        """Scales and all pairs as one vector."""
        return np.concatenate([self._scales.reshape(-1), self._pairs.reshape(-1)])

    def restore(self, state: Floats) -> None:
        """Continue from what `state` returned; UsageError if numbers are not finite."""
        if not np.isfinite(state).all():
            raise UsageError("state", "must be finite and in range", "not a number")
        scales, pairs = np.split(state, [self._scales.size])
        if not (scales > 0.0).all():
            raise UsageError("state", "must be finite and in range", "a scale that is not positive")
        self._scales = scales.reshape(self._scales.shape).copy()
        self._pairs = pairs.reshape(self._pairs.shape).copy()
        self._bound()

    def _conjugate(self) -> list[Pair]:
        """Conjugate pairs, the newest first: `s`, `y`, `sᵀy`, `sᵀs`, and for which tasks (T,) they count."""
        found: list[Pair] = []
        P, _, T, d = self._pairs.shape
        # Those found, one after another in memory, and for each the reciprocal of `sᵀy`, or 0.
        newer, changes, shares = np.zeros((T, P, d)), np.zeros((T, P, d)), np.zeros((T, P))
        for s, y in self._pairs[::-1]:
            length = norm(s, 1)
            if not length.any():
                break
            y = y + (_LEAST * self._bounds)[:, None] * s
            m = len(found)
            # Newer pairs are conjugate to each other, so all can be removed at a time; the second time
            # removes what rounding left of the first.
            for _ in range(_TIMES if m else 0):
                share = shares[:, None, :m] * matmul(changes[:, :m], s[:, :, None]).swapaxes(1, 2)
                s = s - matmul(share, newer[:, :m])[:, 0, :]
                y = y - matmul(share, changes[:, :m])[:, 0, :]
            sy, ss, yy = total(s * y, 1), total(s * s, 1), total(y * y, 1)
            use = (np.sqrt(ss) > _NEW * length) & (sy > 0.5 * _LEAST * self._bounds * ss)
            use &= yy <= _MOST * self._bounds * sy
            if use.any():
                newer[:, m], changes[:, m] = s, y
                shares[:, m] = np.where(use, 1.0, 0.0) / np.where(use, sy, 1.0)
                found.append((s, y, sy, np.where(use, ss, 1.0), use))
        return found
