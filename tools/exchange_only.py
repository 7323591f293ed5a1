"""A worker whose updates are there already and whose steps do nothing, so that a run is the exchange alone.

`python tools/exchange_only.py OPTION…` takes the options of `python -m asyncdmtl.worker`. Rows travel, are
decoded and have their digests checked as in a training. In the first round and the last, the worker compares
every vector with the one that its holder has; it ends with an error if one differs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from systems.common import update

from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.errors import DataError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.step import Columns
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.worker import plan_check


class ExchangeTrainer(Trainer):
    """Has the update of each partition of `systems/common.py`, and keeps the initial models."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        super().__init__(problem, partitions)
        self._round = 0
        # Whether the updates have been written, so that those of later rounds differ in one number only.
        self._filled = False

    @property
    def steps(self) -> int:
        """The number of rounds made."""
        return self._round

    def packed_updates(self, out: NDArray[Any]) -> Floats:
        """Write the updates that are there: of a later round, the numbers that differ from the first."""
        for vector, n in zip(out, self.own, strict=True):
            if not self._filled:
                vector[:] = update(n, 0, len(vector))
            vector[0] = update(n, self._round, len(vector))[0]
        self._filled = True
        return np.zeros(len(self.own))

    def warm_up(self) -> None:
        """Do nothing: there are no steps."""

    def advance(self, Z: Columns, ready: Any) -> None:
        """Do nothing: there are no steps."""

    def step(self, Z: Columns | Vectors | Sequence[Vectors]) -> None:
        """Count the round; compare the vectors of the first round and the last."""
        if self._round in (0, self.problem.rounds - 1):
            columns = Z if callable(Z) else lambda cols: [vector[cols] for vector in Z]
            for n, vector in enumerate(columns(slice(0, self.problem.d))):
                if not np.array_equal(vector, update(n, self._round, len(vector))):
                    raise DataError(f"the update of partition {n}", "must be that of its holders", "another")
        self._round += 1

    def penalty(self) -> float:
        """No penalty."""
        return 0.0

    def state_parts(self) -> list[NDArray[np.uint8]]:
        """The number of rounds: the models never change."""
        return [np.zeros(0, np.uint8), np.array([self._round], np.int64).view(np.uint8)]

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Go on from this number of rounds."""
        self._round = int(state.view(np.int64)[0])
        self._filled = False


def main() -> None:
    """Take part in a run with these updates."""
    plan_check.make_trainer = ExchangeTrainer  # type: ignore[attr-defined]
    from asyncdmtl.cli import worker

    worker.main(sys.argv[1:])


if __name__ == "__main__":
    main()
