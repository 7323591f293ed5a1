"""Cuts of a job that rates violate most, found by local search.

A job has groups of sets of workers, a group for each task: a cut `S` demands a vector for every group of
which some set is inside of `S` (`asyncdmtl.plan.rates.job`). To find the cut with the largest
`demand(S) − Σ_{k∈S} R_k` is an integer program. The search here flips one worker after the other, as long as
that helps, from many starts. It is quick, but finds no proof that there is no other cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats

# The most steps × sets × workers of one search: some tenths of a second.
SEARCH_EFFORT = 20_000_000

# A cut counts as violated if its rates are so far below its demand.
_VIOLATION = 1e-6


class CutSearch:
    """The groups of a job as matrices.

    Parameters
    ----------
    workers : int
    groups : sequence of sequences of frozenset of int
    demanders : collection of int
        Some of them must be outside of each cut; if empty, all workers together are a cut, too.
    """

    def __init__(
        self, workers: int, groups: Sequence[Sequence[frozenset[int]]], demanders: Collection[int]
    ) -> None:
        self._workers = workers
        sets = [H for group in groups for H in group]
        self._members = np.zeros((len(sets), workers), np.int32)
        for i, H in enumerate(sets):
            self._members[i, list(H)] = 1
        self._firsts = np.cumsum([0, *map(len, groups)])[:-1]
        self._sizes = self._members.sum(1)
        self._demanders = np.zeros(workers, np.bool_)
        self._demanders[list(demanders)] = True

    def violated(self, rates: Floats, starts: Iterable[frozenset[int]]) -> list[frozenset[int]]:
        """Different cuts whose demands exceed their rates, found from some of the starts."""
        left = max(2 * self._workers, SEARCH_EFFORT // self._members.size)
        found: dict[frozenset[int], None] = {}
        for S in starts:
            inside = np.zeros(self._workers, np.bool_)
            inside[list(S)] = True
            for _ in range(2 * self._workers):
                left -= 1
                gain = self._gains(inside, rates)
                best = int(np.argmax(gain))
                if gain[best] <= _VIOLATION:
                    break
                inside[best] = not inside[best]
            if self.demand(inside) - float(rates[inside].sum()) > _VIOLATION:
                found[frozenset(map(int, np.flatnonzero(inside)))] = None
            if left <= 0:
                break
        return list(found)

    def demand(self, inside: NDArray[np.bool_]) -> int:
        """The number of groups with a set inside of a cut."""
        return int(self._met(self._members @ inside.astype(np.int32) == self._sizes).sum())

    def _met(self, sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The groups with one of these sets."""
        met: NDArray[np.bool_] = np.logical_or.reduceat(sets, self._firsts)
        return met

    def _gains(self, inside: NDArray[np.bool_], rates: Floats) -> Floats:
        """What the excess of demand over rates gains if each worker by itself is flipped."""
        missing = self._sizes - self._members @ inside.astype(np.int32)
        met = self._met(missing == 0)
        # Groups that are not met gain by the worker that completes a set, and met ones lose by a worker that
        # all their complete sets have.
        nearly = np.logical_or.reduceat(
            (self._members * (missing == 1)[:, None]).astype(np.bool_) & ~inside, self._firsts
        )
        complete = np.logical_and.reduceat(
            (self._members | (missing > 0)[:, None]).astype(np.bool_), self._firsts
        )
        joining = (nearly & ~met[:, None]).sum(0) - rates
        leaving = rates - (complete & met[:, None]).sum(0)
        gains: Floats = np.where(inside, leaving, joining)
        outside = ~inside & self._demanders
        if self._demanders.any() and outside.sum() == 1:
            gains[outside] = -np.inf
        return gains
