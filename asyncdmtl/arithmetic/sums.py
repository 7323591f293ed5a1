"""Sums in one fixed order, a halving tree: the same bits however arrays lie in memory.

`np.sum` adds in an order that depends on the memory layout and on NumPy's version. Here the second half of
the terms is added to the first half, and so on until one term is left. If the number of terms is odd, the
middle term waits for the next turn. The error is that of pairwise summation: at most `log₂(n) ε` of the sum
of magnitudes (Higham, "The Accuracy of Floating Point Summation", SIAM J. Sci. Comput. 14(4), 1993).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", np.float64, np.float32)


def total(x: NDArray[Scalar], axis: int = 0) -> NDArray[Scalar]:
    """The sum along an axis, in the dtype of `x`: (…, n, …) → (…, …); 0 where there are no terms.

    Raises
    ------
    numpy.exceptions.AxisError
        `x` has no such axis.
    """
    terms = _first(x, axis)
    n = len(terms)
    if n < 2:
        return terms[0].copy() if n else np.zeros(terms.shape[1:], x.dtype)
    half = n - n // 2
    folded = terms[:half] + terms[half:] if n == 2 * half else terms[:half].copy()
    if n < 2 * half:
        folded[: n - half] += terms[half:]
    return fold(folded)


def sum_of_all(x: NDArray[Scalar]) -> float:
    """The sum of all numbers of an array, in float64, by the tree of `total` over the flattened array."""
    return float(total(np.ravel(x).astype(np.float64, copy=False)))


def fold(terms: NDArray[Scalar]) -> NDArray[Scalar]:
    """The sum along the first axis, by the tree of `total`; `terms`, at least one, are overwritten."""
    n = len(terms)
    while n > 1:
        half = n - n // 2
        head = terms[: n - half]
        np.add(head, terms[half:n], out=head)
        n = half
    added: NDArray[Scalar] = terms[0]
    return added


def mean(x: NDArray[Scalar], axis: int = 0) -> NDArray[Scalar]:
    """The mean along an axis, which must have at least one term: `total(x, axis) / n`."""
    added = total(x, axis)
    quotient: NDArray[Scalar] = np.divide(added, added.dtype.type(x.shape[axis]))
    return quotient


def sum_of_squares(x: NDArray[Scalar], axis: int = 0) -> NDArray[Scalar]:
    """The sum of squares along an axis."""
    terms = _first(x, axis)
    return fold(np.multiply(terms, terms)) if len(terms) else total(terms)


def norm(x: NDArray[Scalar], axis: int = 0) -> NDArray[Scalar]:
    """Euclidean lengths along an axis; squares may over- or underflow."""
    return np.sqrt(sum_of_squares(x, axis))


def exact_sum(x: NDArray[np.float64]) -> float:
    """The sum of all numbers, rounded once (`math.fsum`); infinite or NaN by the rules of IEEE."""
    flat: list[Any] = x.reshape(-1).tolist()
    try:
        return math.fsum(flat)
    except (OverflowError, ValueError):  # too large, or infinities of both signs
        with np.errstate(over="ignore", invalid="ignore"):
            return float(total(x.reshape(-1)))


def _first(x: NDArray[Scalar], axis: int) -> NDArray[Scalar]:
    """A view with an axis moved to the front; `np.moveaxis` would take some microseconds."""
    if axis < 0:
        axis += x.ndim
    if not 0 <= axis < x.ndim:
        raise np.exceptions.AxisError(axis, x.ndim)
    return x.transpose(axis, *range(axis), *range(axis + 1, x.ndim)) if axis else x
