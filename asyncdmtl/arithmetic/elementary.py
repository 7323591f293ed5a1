"""`exp`, `log` and functions made of them, from `+ − × ÷` and bit operations: the same bits everywhere.

NumPy's own functions use other polynomials with AVX-512, with SVML, and on other architectures. The functions
here use the argument reductions and polynomials of Sun's fdlibm (`e_exp.c`, `e_log.c`), one operation on all
numbers at a time. Errors are below 1 unit in the last place for `exp` and `log`, and below 2 for the others.
All functions take and return float64 arrays of any shape; NaN gives NaN, and no warning is issued.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic import blas
from asyncdmtl.arrays import Floats

# ln 2 in two parts, from fdlibm. The first part ends in 32 zero bits, so that multiplying it by an exponent
# is exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_INVERSE_LN2 = 1.44269504088896338700e00

# Remez coefficients of fdlibm: of r·(eʳ + 1)/(eʳ − 1) − 2 in r², and of log((1 + s)/(1 − s))/s − 2 in s².
_EXP = (
    1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
    -1.65339022054652515390e-06, 4.13813679705723846039e-08,
)  # fmt: skip
_LOG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip

# `exp` is infinite for arguments above the first, and 0 for arguments below the second.
_EXP_MOST, _EXP_LEAST = 709.782712893384, -745.1332191019412

# The format of float64: the number of bits of the fraction, the bias of exponents, and the fraction's mask.
_FRACTION_BITS, _BIAS, _FRACTION = 52, 1023, (1 << 52) - 1
_SQRT2 = 1.4142135623730951


def _or_of_numpy(own: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """The function of this module, and NumPy's of the same name in blocks of `blas.by_blas`."""
    of_numpy = getattr(np, own.__name__)

    @wraps(own)
    def either(x: Floats) -> Floats:
        if not blas.chosen():
            return own(x)
        with np.errstate(all="ignore"):
            return np.asarray(of_numpy(x))

    return either


@_or_of_numpy
def exp(x: Floats) -> Floats:
    """`eˣ`, infinite above 709.78 and 0 below −745.13."""
    k, r = _reduced(x)
    result: Floats = _scaled(_expm1_reduced(r) + 1.0, k)
    return _with_ends(result, x, 0.0)


@_or_of_numpy
def expm1(x: Floats) -> Floats:
    """`eˣ − 1`, accurate to all digits near 0."""
    k, r = _reduced(x)
    small = _expm1_reduced(r)
    # For k above 54 the 1 is lost in rounding anyway; below, 2ᵏ − 1 is as good as exact.
    one = _power_of_two(-np.minimum(k, 1000))
    result: Floats = _scaled(small + (1.0 - one), k)
    result = np.where(k < -60, -1.0, result)
    return _with_ends(np.where(k == 0, small, result), x, -1.0)


@_or_of_numpy
def log(x: Floats) -> Floats:
    """`ln x`; −∞ at 0 and NaN below."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        subnormal = x < np.finfo(np.float64).tiny
        bits = np.where(subnormal, x * 2.0**54, x).view(np.int64)
        k = (bits >> _FRACTION_BITS) - _BIAS - np.where(subnormal, 54, 0)
        m = ((bits & _FRACTION) | (_BIAS << _FRACTION_BITS)).view(np.float64)
        large = m > _SQRT2
        f = np.where(large, 0.5 * m, m) - 1.0
        n = (k + large).astype(np.float64)
        s = f / (2.0 + f)
        half = 0.5 * f * f
        z = s * s
        R = _polynomial(_LOG, z) * z
        result: Floats = n * _LN2_HIGH - ((half - (s * (half + R) + n * _LN2_LOW)) - f)
        result = np.where(x == 0.0, -np.inf, np.where(x == np.inf, np.inf, result))
        return np.where(x >= 0.0, result, np.nan)


@_or_of_numpy
def log1p(x: Floats) -> Floats:
    """`ln(1 + x)`, accurate to all digits near 0; −∞ at −1 and NaN below."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        u = 1.0 + x
        # Rounding has changed 1 + x by a little; one step along the derivative corrects the logarithm.
        lost = np.where(x > 1.0, 1.0 - (u - x), x - (u - 1.0)) / u
        result = np.where(u == 1.0, x, log(u) + lost)
        return np.where((u > 0.0) & (u < np.inf), result, log(u))


def expit(x: Floats) -> Floats:
    """`1 / (1 + e⁻ˣ)`."""
    e = exp(-np.abs(x))
    result: Floats = np.where(x >= 0.0, 1.0, e) / (1.0 + e)
    return result


def softplus(x: Floats) -> Floats:
    """`ln(1 + eˣ)`, which does not overflow."""
    result: Floats = np.where(x > 0.0, x, 0.0) + log1p(exp(-np.abs(x)))
    return result


def _reduced(x: Floats) -> tuple[NDArray[np.int64], tuple[Floats, Floats]]:
    """`k` and `r = high − low` with `x = k ln 2 + r`, `|r| ≤ ½ ln 2`; both are arbitrary where `x` is NaN."""
    within = np.where(x < _EXP_MOST, np.where(x > _EXP_LEAST, x, _EXP_LEAST), _EXP_MOST)
    n = np.rint(within * _INVERSE_LN2)
    return n.astype(np.int64), (within - n * _LN2_HIGH, n * _LN2_LOW)


def _expm1_reduced(r: tuple[Floats, Floats]) -> Floats:
    """`eʳ − 1` for `r = high − low`."""
    high, low = r
    with np.errstate(under="ignore"):
        x = high - low
        t = x * x
        c = x - t * _polynomial(_EXP, t)
        result: Floats = high - (low - x * c / (2.0 - c))
        return result


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """The value of a polynomial by Horner's rule; `coefficients` begin with the lowest power."""
    value = x * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        value += c
        value *= x
    value += coefficients[0]
    return value


def _power_of_two(k: NDArray[np.int64]) -> Floats:
    """`2ᵏ` for `−1022 ≤ k ≤ 1023`."""
    return ((k + _BIAS) << _FRACTION_BITS).view(np.float64)


def _scaled(x: Floats, k: NDArray[np.int64]) -> Floats:
    """`x·2ᵏ`, rounded once even where it is subnormal."""
    half = k >> 1
    with np.errstate(over="ignore", under="ignore"):
        return x * _power_of_two(half) * _power_of_two(k - half)


def _with_ends(result: Floats, x: Floats, least: float) -> Floats:
    """`result` where `exp` is neither infinite nor 0; else the limit of `exp`, and NaN where `x` is NaN."""
    result = np.where(x > _EXP_MOST, np.inf, np.where(x < _EXP_LEAST, least, result))
    return np.where(x == x, result, np.nan)
