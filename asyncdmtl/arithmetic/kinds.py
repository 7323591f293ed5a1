"""Two kinds of arithmetic for singular values: the same bits everywhere, or the speed of LAPACK.

All other arithmetic of a run costs little and is always that of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from asyncdmtl.arithmetic import products, spectral
from asyncdmtl.arrays import Floats


@dataclass(frozen=True)
class Arithmetic:
    """The functions that compute singular values of models: those of `products` and `spectral`, or others.

    All but `left_svd` take stacks of matrices, too.
    """

    matmul: Callable[[Floats, Floats], Floats]
    gram: Callable[[Floats], Floats]
    eigh: Callable[[Floats], tuple[Floats, Floats]]
    left_svd: Callable[[Floats], tuple[Floats, Floats]]
    singular_values: Callable[[Floats], Floats]


def _fast_gram(A: Floats) -> Floats:
    squared: Floats = np.matmul(A, np.swapaxes(A, -1, -2))
    return squared


def _fast_eigh(S: Floats) -> tuple[Floats, Floats]:
    values, V = np.linalg.eigh(S)
    return values, V


def _fast_left_svd(A: Floats) -> tuple[Floats, Floats]:
    """The left singular vectors and the singular values, from `R` of a QR of the long side."""
    _, sigma, Vt = np.linalg.svd(np.linalg.qr(A.T, mode="r"))
    return Vt.T, sigma


def _fast_singular_values(A: Floats) -> Floats:
    sigma = np.linalg.svd(A, compute_uv=False)
    return sigma.astype(np.float64, copy=False)


REPRODUCIBLE = Arithmetic(
    products.matmul, products.gram, spectral.eigh, spectral.left_svd, spectral.singular_values
)
"""The same bits on every machine."""

FAST = Arithmetic(np.matmul, _fast_gram, _fast_eigh, _fast_left_svd, _fast_singular_values)
"""BLAS and LAPACK: the same bits on machines with the same NumPy, BLAS and kind of CPU, on one thread."""

ARITHMETICS: Mapping[str, Arithmetic] = MappingProxyType({"reproducible": REPRODUCIBLE, "fast": FAST})
