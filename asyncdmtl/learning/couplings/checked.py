"""A coupling of a plug-in, whose results are checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.base import Coupling


@dataclass(frozen=True)
class Checked(Coupling):
    """Passes on to the coupling `inner`, which was registered as `name`.

    Raises
    ------
    UsageError
        A method returned another shape or type than `Coupling` demands, or NaN.
    """

    name: str
    inner: Coupling

    def __post_init__(self) -> None:
        object.__setattr__(self, "columnwise", self.inner.columnwise)

    def mixing(self, tasks: int) -> Floats:
        """`Φ` (C, T)."""
        found = self.inner.mixing(tasks)
        if not isinstance(found, np.ndarray) or found.ndim != 2 or found.shape[1] != tasks:
            shape = getattr(found, "shape", type(found).__name__)
            raise self._error("mixing", f"a matrix of {tasks} columns", shape)
        return found

    def penalty(self, W: Floats) -> float:
        """`λ R(W)`, which may be infinite."""
        return self._number("penalty", self.inner.penalty(W), math.inf)

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """The prox of a copy, so that `W` stays as it is unless it is `out`."""
        found = self.inner.prox(W.copy(), step)
        if not isinstance(found, np.ndarray) or found.shape != W.shape or found.dtype.kind != "f":
            shape = getattr(found, "shape", type(found).__name__)
            raise self._error("prox", f"an array of floats of shape {W.shape}", shape)
        if np.isfinite(W).all() and not np.isfinite(found).all():
            raise self._error(
                "prox", "finite numbers for finite numbers", float(found[~np.isfinite(found)][0])
            )
        found = found.astype(W.dtype, copy=False)
        if out is None:
            return found
        out[...] = found
        return out

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """The first λ of a descending path."""
        return self._number("critical_strength", self.inner.critical_strength(Z, smoothness), 1e300)

    def _number(self, method: str, value: object, most: float) -> float:
        if not isinstance(value, int | float | np.number) or not 0.0 <= float(value) <= most:
            raise self._error(method, "a number of at least 0", value)
        return float(value)

    def _error(self, method: str, rule: str, value: object) -> UsageError:
        return UsageError(f"{method} of the coupling {self.name}", f"must return {rule}", value)
