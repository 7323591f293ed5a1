"""Bounds of the Lipschitz constant of a loss's gradient, from which step lengths follow."""

from __future__ import annotations

import math

import numpy as np

from asyncdmtl.arithmetic.solving import positive_definite
from asyncdmtl.arrays import Floats

# Significant bits of a bound: so coarse that rounding errors of LAPACK's eigenvalues hardly ever change it.
_BITS = 12

# The most rows of a matrix whose bound is checked by Cholesky factors: the check takes milliseconds for 200
# rows, and time grows with their cube. Bounds of larger matrices rely on the coarse rounding, whose result
# LAPACK's last bits change in one of 10¹⁰ cases.
_CHECKED = 512

# The factor by which the eigenvalue is raised before it is rounded up: eigenvalues of integer data often have
# few bits, and would lie exactly where rounding jumps.
_MARGIN = 1.0 + 1e-9


def largest_eigenvalue_bound(S: Floats, factor: float) -> float:
    """The least number of 12 bits that is at least `factor` times the largest eigenvalue of `S`, and 1e-9.

    `S` is (n, n), finite and positive semidefinite, `factor` above 0. LAPACK, whose last bits depend on the
    machine, proposes the number. Cholesky's factors of `c·I − S`, which have the same bits everywhere, then
    decide whether it is large enough and the next smaller number is too small.
    """
    if not S.any():
        return 0.0
    largest = max(float(np.linalg.eigvalsh(S)[-1]), float(np.diag(S).max()))
    mantissa, exponent = math.frexp(largest * factor * _MARGIN)
    proposed = math.ceil(mantissa * 2**_BITS)
    if len(S) > _CHECKED:
        return math.ldexp(proposed, exponent - _BITS)
    bounds = [math.ldexp(k, exponent - _BITS) for k in range(proposed - 1, proposed + 2)]
    scale = math.frexp(largest)[1]
    shifts = np.array([math.ldexp(bound / factor / _MARGIN, -scale) for bound in bounds])
    enough = positive_definite(shifts[:, None, None] * np.eye(len(S)) - np.ldexp(S, -scale))
    return bounds[int(np.argmax(enough))] if enough.any() else bounds[-1]
