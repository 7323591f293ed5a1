"""A discrete-event simulation of a stream of jobs, whose rounds several workers make together.

A round of a job begins with a piece of work at every worker. A worker makes one piece at a time, that of the
earliest job first, and is never interrupted but by the end of the round: when as many workers as are needed
have ended, the pieces of the others are dropped. Then the next round of the job begins, or the job has ended.
If rows are on the wire in between, a worker begins what waits for it meanwhile: where it is the slowest, it
takes the rounds of two jobs in turn. Jobs are delivered in order of arrival.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

# A function of a job and a round that gives the time of each worker, 0 for one with nothing to do.
Draw = Callable[[int, int], Sequence[float]]


@dataclass(frozen=True)
class Simulated:
    """What a simulation found.

    Attributes
    ----------
    delays : float array (jobs,)
        The time of each job from its arrival until it and all before it had ended.
    """

    delays: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean delay of all jobs but the first tenth, before which the queue has not filled."""
        return float(self.delays[len(self.delays) // 10 :].mean())


@dataclass
class _Worker:
    """What a worker does (job, round), when that began, and what waits for it."""

    now: tuple[int, int] | None = None
    waiting: list[tuple[tuple[int, int], float]] = field(default_factory=list)


@dataclass
class _Simulation:
    arrivals: Sequence[float] | NDArray[np.float64]
    draw: Draw
    rounds: int
    silent: int
    in_flight: int | None
    pause: float

    def __post_init__(self) -> None:
        self._numbers = count()
        # Each has a time, its number, the worker that ends a piece, and the piece; or -1, and a job whose
        # next round begins.
        self._events: list[tuple[float, int, int, tuple[int, int]]] = []
        self._workers = [_Worker() for _ in self.draw(0, 0)]
        self._round = [0] * len(self.arrivals)
        self._left = [0] * len(self.arrivals)
        self._started = self._ended = self._arrived = 0
        self._ends = np.zeros(len(self.arrivals))

    def run(self) -> Simulated:
        """Go from event to event until all jobs have ended."""
        jobs = len(self.arrivals)
        while self._ended < jobs:
            arrival = self.arrivals[self._arrived] if self._arrived < jobs else np.inf
            if self._events and self._events[0][0] < arrival:
                now, _, k, piece = heapq.heappop(self._events)
                if k < 0:
                    self._begin_round(now, piece[0])
                else:
                    self._end_piece(now, k, piece)
            else:
                now = arrival
                self._arrived += 1
            while self._started < self._arrived and self._has_place():
                self._started += 1
                self._begin_round(now, self._started - 1)
        delivered = np.maximum.accumulate(self._ends)
        return Simulated(delivered - np.asarray(self.arrivals))

    def _has_place(self) -> bool:
        return self.in_flight is None or self._started - self._ended < self.in_flight

    def _begin_round(self, now: float, job: int) -> None:
        piece = job, self._round[job]
        times = self.draw(*piece)
        self._left[job] = sum(time > 0 for time in times) - self.silent
        for k, time in enumerate(times):
            if time > 0:
                heapq.heappush(self._workers[k].waiting, (piece, time))
                self._begin_piece(now, k)

    def _begin_piece(self, now: float, k: int) -> None:
        """Let a worker begin what waits for it, if it is free."""
        worker = self._workers[k]
        while worker.now is None and worker.waiting:
            piece, time = heapq.heappop(worker.waiting)
            if piece[1] == self._round[piece[0]]:
                worker.now = piece
                heapq.heappush(self._events, (now + time, next(self._numbers), k, piece))

    def _end_piece(self, now: float, k: int, piece: tuple[int, int]) -> None:
        if self._workers[k].now != piece:
            return  # It was dropped.
        self._workers[k].now = None
        job, _ = piece
        self._left[job] -= 1
        if not self._left[job]:
            self._round[job] += 1
            for other, worker in enumerate(self._workers):
                if worker.now == piece:
                    worker.now = None
                    self._begin_piece(now, other)
            if self._round[job] == self.rounds:
                self._ended += 1
                self._ends[job] = now
            elif self.pause:
                heapq.heappush(self._events, (now + self.pause, next(self._numbers), -1, (job, 0)))
            else:
                self._begin_round(now, job)
        self._begin_piece(now, k)


def simulate(
    arrivals: Sequence[float] | NDArray[np.float64],
    draw: Draw,
    *,
    rounds: int = 1,
    silent: int = 0,
    in_flight: int | None = None,
    pause: float = 0.0,
) -> Simulated:
    """Simulate a stream of jobs.

    Parameters
    ----------
    arrivals : sequence of float
        The times at which jobs arrive, ascending.
    draw : callable
        The time of each worker for its work in a round of a job.
    rounds : int
        Rounds of each job.
    silent : int
        Workers, whichever, for which a round does not wait.
    in_flight : int or None
        The most jobs that are made at one time; None for any number.
    pause : float
        The time between the end of a round and the beginning of the job's next one.
    """
    return _Simulation(arrivals, draw, rounds, silent, in_flight, pause).run()


def poisson_arrivals(rate: float, jobs: int, seed: int) -> NDArray[np.float64]:
    """The times of so many arrivals of a Poisson process, of `rate` in a unit of time."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, jobs))


def varying(times: Sequence[float], variation: float, seed: int) -> Draw:
    """Draws times with these means and this coefficient of variation, distributed as `Stream` says."""
    random, means = np.random.default_rng(seed), np.asarray(times, dtype=float)

    def draw(job: int, round_: int) -> Sequence[float]:
        drawn: list[float] = (
            means * (1 - variation + variation * random.exponential(size=len(means)))
        ).tolist()
        return drawn

    return draw
