"""Service times of rounds and jobs, and the mean delay of jobs that wait for each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.errors import UsageError

# Nodes of the quadrature on each panel: with as many, a moment is exact to some 10 digits.
NODES = 48

# Panels of the tail after the last worker's least time, each as wide as the longest mean time that varies:
# what lies beyond has a probability of e^-48.
TAIL_PANELS = 48


@dataclass(frozen=True)
class Stream:
    """A stream of jobs that arrive at random moments (a Poisson process).

    Attributes
    ----------
    arrivals : float
        `λ`, the mean number of jobs that arrive in a unit of time.
    rounds : int
        Rounds of a job, one after another.
    variation : float
        The coefficient of variation `c` of a worker's time for its rows of a round, from 0 to 1. The time is
        its mean times `1 − c + c·E`, where `E` is exponential with mean 1: a least time, and a random rest.

    Raises
    ------
    UsageError
        A number breaks its rule.
    """

    arrivals: float
    rounds: int = 1
    variation: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.arrivals < math.inf:
            raise UsageError("arrivals", "must be more than 0 and finite", self.arrivals)
        if self.rounds < 1:
            raise UsageError("rounds", "must be at least 1", self.rounds)
        if not 0 <= self.variation <= 1:
            raise UsageError("variation", "must lie between 0 and 1", self.variation)


@dataclass(frozen=True)
class Moments:
    """The first two moments of a time, in units of time and their square."""

    mean: float
    square: float

    def repeated(self, times: int) -> Moments:
        """The moments of the sum of so many independent times."""
        return Moments(times * self.mean, times * self.square + times * (times - 1) * self.mean**2)


def one_time(mean: float, variation: float) -> Moments:
    """The moments of one worker's time."""
    return Moments(mean, mean**2 * (1 + variation**2))


def round_time(times: Sequence[float], needed: int, variation: float) -> Moments:
    """The moments of a round, which ends when `needed` of the workers have ended.

    With `F_k` the distribution of worker `k`, the round takes longer than `t` with the probability that fewer
    than `needed` workers have ended by `t`, a sum over the Poisson-binomial distribution of the `F_k(t)`;
    `E[T] = ∫ P(T > t) dt` and `E[T²] = ∫ 2t P(T > t) dt`.

    Parameters
    ----------
    times : sequence of float
        Mean times of the workers that send something.
    needed : int
        From 1 to their number.
    variation : float
        As for `Stream`.
    """
    if not 1 <= needed <= len(times):
        raise UsageError("needed", f"must lie between 1 and the number of workers, {len(times)}", needed)
    means = np.sort(np.asarray(times, dtype=float))
    if variation == 0:
        return one_time(float(means[needed - 1]), 0.0)
    least, scale = means * (1 - variation), float(means[-1]) * variation
    edges = np.unique(np.concatenate([[0.0], least, least[-1] + scale * np.arange(1, TAIL_PANELS + 1)]))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges)[:, None] / 2
    t = (edges[:-1, None] + half + half * nodes).ravel()
    w = (half * weights).ravel()
    late = _fewer_than(needed, 1 - np.exp(-np.maximum(t - least[:, None], 0) / (means[:, None] * variation)))
    return Moments(float(w @ late), float(w @ (2 * t * late)))


def _fewer_than(needed: int, done: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that fewer than `needed` workers are done, from that of each, shape (K, points)."""
    counts = np.zeros((needed, done.shape[1]))
    counts[0] = 1.0
    for probability in done:
        counts[1:] = counts[1:] * (1 - probability) + counts[:-1] * probability
        counts[0] *= 1 - probability
    found: NDArray[np.float64] = counts.sum(axis=0)
    return found


def mean_delay(arrivals: float, service: Moments) -> float:
    """The mean time from a job's arrival to its end in an M/G/1 queue; infinite if jobs come too fast.

    Pollaczek and Khinchine: `E[X] + λ E[X²] / (2 (1 − λ E[X]))`.
    """
    load = arrivals * service.mean
    if load >= 1:
        return math.inf
    return service.mean + arrivals * service.square / (2 * (1 - load))


def ideal_factor(variation: float) -> float:
    """`1 / E[1/Y]` for `Y = 1 − c + c·E`: the share of its mean time that varying work takes at the least.

    Workers whose work is divided again at every moment end it in `L / Σ (b_k / Y_k)`, whose mean is at least
    `L / Σ b_k E[1/Y]` (Jensen).
    """
    if variation == 0:
        return 1.0
    if variation == 1:
        return 0.0
    # Imported here, since SciPy takes a moment to import.
    from scipy.special import exp1

    ratio = (1 - variation) / variation
    # For large ratios e^x E1(x) is 1/x to rounding, and e^x would overflow.
    scaled = 1 / ratio if ratio > 500 else math.exp(ratio) * float(exp1(ratio))
    return variation / scaled
