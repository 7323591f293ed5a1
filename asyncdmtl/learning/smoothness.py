"""How fast the gradient of a loss changes with the model, at the most; step lengths follow from it."""

from __future__ import annotations

import math

import numpy as np

from asyncdmtl.arithmetic.solving import positive_definite
from asyncdmtl.arrays import Floats

# Significant bits of a bound: coarse enough that eigenvalues from LAPACK miss by next to nothing beside them.
_BITS = 12

# Rows of a matrix up to which a bound is checked by Cholesky factors. It takes milliseconds for 200 rows and
# grows with their cube; larger matrices trust the rounding alone, which LAPACK's last bits change in one of
# 10¹⁰ cases.
_CHECKED = 512

# Kept above the eigenvalue, so that integer data do not lie at the edge of being rounded up.
_MARGIN = 1.0 + 1e-9


def largest_eigenvalue_bound(S: Floats, factor: float) -> float:
    """The least number of 12 bits that is at least `factor` times the largest eigenvalue of `S`, and 1e-9.

    `S` is (n, n), finite and positive semidefinite, `factor` above 0. LAPACK proposes the number, whose last
    bits depend on the machine; whether it is large enough, and the next smaller one too small, is decided by
    Cholesky's factors of `c·I − S`, which do not.
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
