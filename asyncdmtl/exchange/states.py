"""The comparison of the states of the training that the workers of a run hold.

A state has a check of 16 bytes, which every worker sends with its rows. Under exact strategies, all workers
hold the same bits, and the check is a digest. Under `linear`, models differ between workers by rounding, and
the check is a sketch: a projection and a norm of the models, which differ as little.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.digests import VECTOR_DIGEST_BYTES, Digest
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import make_trainer

# Two sketches agree if they differ by at most this power of the dtype's unit roundoff, relative to the norm
# of the models, since rounding grows over the rounds of a run.
_AGREEMENT_POWER = 0.5

# Rounding that grows from round to round is noticed before sketches differ by more than this many times the
# difference that is permitted: it grows seventyfold in a round at most, and a projection may hide some of it.
_NEAR = 1000.0

# The projection's signs repeat after this number of columns, so that few of them suffice for any models.
_SIGNS = np.where(np.random.default_rng(23).integers(0, 2, 1021), 1.0, -1.0)


@dataclass(frozen=True)
class Majority:
    """The state that most workers hold, or are near to.

    Attributes
    ----------
    check : bytes
        The check of the state.
    odd : tuple of str
        The workers that hold another state.
    """

    check: bytes
    odd: tuple[str, ...]


class States(ABC):
    """The comparison of states under one strategy.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    @abstractmethod
    def check(self, state: Bytes) -> bytes:
        """The check of a state (`Trainer.state`)."""

    @abstractmethod
    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two checks are of the same state."""

    def near(self, one: bytes, other: bytes) -> bool:
        """Whether two states may differ only by rounding that has grown; never, if their bits are equal."""
        return False

    def initial(self) -> tuple[Bytes, bytes]:
        """The state before the first round, as the server gives it to a worker, and its check."""
        state = make_trainer(self._problem, {}).state()
        return state, self.check(state)

    def majority(self, told: Mapping[str, bytes], electorate: int | None = None) -> Majority | None:
        """The state that more than half of the workers hold, or are near to; None if there is none.

        Parameters
        ----------
        told : mapping of worker to the check of its state
        electorate : int, optional
            The number of workers of which more than half must agree; default: those that told.
        """
        least = (len(told) if electorate is None else electorate) // 2 + 1
        # Rounding may have moved all states apart. Then one to which most are near is as good as any.
        for alike in (self.same, self.near):
            for check in dict.fromkeys(told.values()):
                if sum(alike(check, other) for other in told.values()) >= least:
                    odd = tuple(worker for worker, other in told.items() if not self.same(check, other))
                    return Majority(check, odd)
        return None


class ExactStates(States):
    """States whose bits are the same at all workers.

    Parameters
    ----------
    problem : Problem
    digest : Digest
        The digests of the run.
    """

    def __init__(self, problem: Problem, digest: Digest) -> None:
        super().__init__(problem)
        size = len(problem.tasks) * problem.d * problem.dtype.itemsize
        self._starts = (0, size, 2 * size) if problem.accelerated else (0, size)
        self._digest = digest

    def check(self, state: Bytes) -> bytes:
        """The digest of the digests of a state's parts: models, models before (if kept), the rest."""
        stops = (*self._starts[1:], len(state))
        parts = zip(self._starts, stops, strict=True)
        return self._digest.combined([self._digest(state[start:stop]) for start, stop in parts])

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two digests are equal."""
        return one == other


class OwnState:
    """The check of the state of a worker's own trainer, as `ExactStates` computes it.

    The models before the last step are those that were hashed a round earlier, so that their digest is known.

    Parameters
    ----------
    trainer : Trainer
        Its state is changed by its steps alone.
    digest : Digest
        The digests of the run.
    """

    def __init__(self, trainer: Trainer, digest: Digest) -> None:
        self._trainer = trainer
        self._digest = digest
        # Where the models that were hashed last are in memory, the number of steps then, and their digest.
        self._hashed = (0, -1, b"")

    def check(self) -> bytes:
        """The check of the state that the trainer holds."""
        models, *others = self._trainer.state_parts()
        digests, count = [self._digest(models)], self._trainer.steps
        place, steps, known = self._hashed
        if self._trainer.problem.accelerated:
            before = others.pop(0)
            same = before.ctypes.data == place and count == steps + 1
            digests.append(known if same else self._digest(before))
        self._hashed = (models.ctypes.data, count, digests[0])
        return self._digest.combined([*digests, self._digest.of_parts(others)])


class RoundedStates(States):
    """States that differ between workers by rounding.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._shape = len(problem.tasks), problem.d
        self._dtype = problem.dtype
        self._tolerance = float(np.finfo(problem.dtype).eps) ** _AGREEMENT_POWER

    def check(self, state: Bytes) -> bytes:
        """The sketch of the models in a state."""
        T, d = self._shape
        size = T * d * self._dtype.itemsize
        return sketch(np.frombuffer(state[:size].tobytes(), self._dtype).reshape(T, d))

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two sketches differ by no more than rounding; false if a number is not finite."""
        return self._within(1.0, one, other)

    def near(self, one: bytes, other: bytes) -> bool:
        """Whether two sketches differ by no more than rounding that has grown."""
        return self._within(_NEAR, one, other)

    def _within(self, times: float, one: bytes, other: bytes) -> bool:
        """Whether two sketches differ by at most so many times the permitted difference."""
        if not len(one) == len(other) == VECTOR_DIGEST_BYTES:
            return False
        projection, norm = struct.unpack("<2d", one)
        projection_, norm_ = struct.unpack("<2d", other)
        limit: float = times * self._tolerance * max(norm, norm_)
        difference: float = max(abs(projection - projection_), abs(norm - norm_))
        return difference <= limit < math.inf


def sketch(models: Vectors) -> bytes:
    """A random projection of models (T, d) and their Euclidean norm, as two float64.

    A projection on random signs changes by the size of a change of any one number.
    """
    T, d = models.shape
    signs = np.resize(_SIGNS, d).astype(models.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        rows = (models @ signs).astype(np.float64)
        squares = np.array([np.dot(row, row) for row in models], np.float64)
        return struct.pack("<2d", float(np.resize(_SIGNS[::-1], T) @ rows), float(np.sqrt(squares.sum())))
