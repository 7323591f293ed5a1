"""The strength of a coupling from which on all coefficients are 0, known where they are."""

from __future__ import annotations

from collections.abc import Callable

from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.problem import Problem


class ZeroModels:
    """Keeps the gradients of the last step, if it left all coefficients at 0."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._found: tuple[Coupling, Floats] | None = None

    def note(self, W: Vectors, gradients: Callable[[], Floats], coupling: Coupling | None = None) -> None:
        """Take note of a step.

        Parameters
        ----------
        W : (T, d) array
            The models after the step.
        gradients : callable
            Makes the gradients (T, coupled) from which the step was made; called if all coefficients are 0.
        coupling : Coupling, optional
            Default: that of the problem.
        """
        zero = not W[:, : self._problem.features].any()
        self._found = (coupling or self._problem.coupling, gradients()) if zero else None

    def forget(self) -> None:
        """Forget the step: the models come from elsewhere."""
        self._found = None

    @property
    def critical_strength(self) -> float | None:
        """See `Trainer.critical_strength`."""
        if self._found is None:
            return None
        coupling, gradients = self._found
        return coupling.critical_strength(gradients, 1.0 / self._problem.step_lengths[0])
