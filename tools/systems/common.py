"""The exchange that every system here makes, and the interface to `tools/compare_systems.py`.

In a round, worker `k` of `N` has the vector `update(k, round, numbers)`, and must obtain all `N` vectors.
These scripts run in an environment of their own, most of them without asyncdmtl: `python SCRIPT ROLE` with
the environment's variables WORKERS, NUMBERS, ROUNDS and SERVER (host:port).
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

WORKERS, NUMBERS, ROUNDS = (int(os.environ.get(name, "0")) for name in ("WORKERS", "NUMBERS", "ROUNDS"))
HOST, _, PORT = os.environ.get("SERVER", "127.0.0.1:7700").partition(":")

# One round more than is measured, to warm up connections and caches.
ALL_ROUNDS = range(ROUNDS + 1)


@functools.cache
def _base(worker: int, numbers: int) -> Vector:
    return np.random.default_rng(worker).random(numbers, dtype=np.float32)


def update(worker: int, round_: int, numbers: int = NUMBERS) -> Vector:
    """The vector of a worker in a round, valid until the next call for this worker.

    Its first number is the round and the others never change: what is measured is the exchange of vectors
    that are there already, not their making.
    """
    vector = _base(worker, numbers)
    vector[0] = round_
    return vector


def training_like(workers: int, numbers: int, rounds: int) -> tuple[str, dict[str, Any]]:
    """The data and the options of the training in which asyncdmtl makes the same exchange."""
    spec = f"synthetic:tasks={workers},rows=2,parts=1,features={numbers},rank=1,test_rows=0"
    return spec, {"coupling": "l21", "intercept": "none", "rounds": rounds}


def checked(round_: int) -> bool:
    """Whether a round's vectors are compared: in the first round, which is not measured, and the last."""
    return round_ in (0, ALL_ROUNDS[-1])


def check(updates: Sequence[Vector], round_: int) -> None:
    """End the process unless these are the updates of all workers in a round."""
    if len(updates) != WORKERS:
        sys.exit(f"{len(updates)} updates came, not {WORKERS}")
    for worker, vector in enumerate(updates):
        if not np.array_equal(vector, update(worker, round_, len(vector))):
            sys.exit(f"another update of worker {worker} came in round {round_}")


class Server:
    """Reports the beginning and end of rounds, and waits while the tool reads the kernel's counters."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def round(self, round_: int) -> None:
        """Called once in each round, always at the same point, while no other round is in progress."""
        self._times.append(time.perf_counter())
        if round_ == 0:
            self._say("warm")
            self._times = [time.perf_counter()]
        elif round_ == ROUNDS:
            seconds = [after - before for before, after in pairwise(self._times)]
            self._say(json.dumps(seconds))

    @staticmethod
    def _say(word: str) -> None:
        print(word, flush=True)
        sys.stdin.readline()
