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

# Two sketches agree if they differ by at most this power of the dtype's unit roundoff, relative to the norm
# of the models, since rounding grows over the rounds of a run.
_AGREEMENT_POWER = 0.5

# The projection's signs repeat after this number of columns, so that few of them suffice for any models.
_SIGNS = np.where(np.random.default_rng(23).integers(0, 2, 1021), 1.0, -1.0)


@dataclass(frozen=True)
class Majority:
    """The state that most workers hold.

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
    """The comparison of states under one strategy."""

    @abstractmethod
    def check(self, state: Bytes) -> bytes:
        """The check of a state (`Trainer.state`)."""

    @abstractmethod
    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two checks are of the same state."""

    def majority(self, told: Mapping[str, bytes], electorate: int | None = None) -> Majority | None:
        """The state that more than half of the workers hold; None if there is none.

        Parameters
        ----------
        told : mapping of worker to the check of its state
        electorate : int, optional
            The number of workers of which more than half must agree; default: those that told.
        """
        least = (len(told) if electorate is None else electorate) // 2 + 1
        for check in dict.fromkeys(told.values()):
            odd = tuple(worker for worker, other in told.items() if not self.same(check, other))
            if len(told) - len(odd) >= least:
                return Majority(check, odd)
        return None


class ExactStates(States):
    """States whose bits are the same at all workers.

    Parameters
    ----------
    digest : Digest
        The digests of the run.
    """

    def __init__(self, digest: Digest) -> None:
        self._digest = digest

    def check(self, state: Bytes) -> bytes:
        """The digest of a state."""
        return self._digest(state)

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two digests are equal."""
        return one == other


class RoundedStates(States):
    """States that differ between workers by rounding.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
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
        if not len(one) == len(other) == VECTOR_DIGEST_BYTES:
            return False
        projection, norm = struct.unpack("<2d", one)
        projection_, norm_ = struct.unpack("<2d", other)
        limit: float = self._tolerance * max(norm, norm_)
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
