"""A digest of fixed computations, by which two machines find out whether their arithmetic is the same.

The numbers come from an integer generator, since NumPy's random streams may change. Subnormal numbers are
among them, which some libraries (built with `-ffast-math`) switch off for the whole process. Arrays have
sizes on both sides of those at which BLAS changes its kernel.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from asyncdmtl.arithmetic import elementary, products, solving, spectral, sums
from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats

DIGEST_BYTES = 16
"""Bytes of each digest."""

_MULTIPLIER, _INCREMENT = 6364136223846793005, 1442695040888963407  # Knuth's MMIX generator, modulo 2⁶⁴


KINDS = ("reproducible", "fast")
"""Kinds of arithmetic: that of this package, and the same with LAPACK's decompositions."""


def digest(kind: str = "reproducible") -> bytes:
    """`DIGEST_BYTES` bytes, equal on two machines whose arithmetic of this kind (one of `KINDS`) agrees."""
    h = hashlib.blake2b(digest_size=DIGEST_BYTES, usedforsecurity=False)
    for name, value in digests(kind).items():
        h.update(name.encode() + value)
    return h.digest()


@cache
def digests(kind: str = "reproducible") -> Mapping[str, bytes]:
    """A digest for each part of the arithmetic, by the part's name, to find out which part differs."""
    parts = _PARTS | _FAST_PARTS if kind == "fast" else _PARTS
    return {name: _hashed(compute()) for name, compute in parts.items()}


def describe() -> dict[str, str]:
    """What last bits may depend on: NumPy's version, the BLAS library and its kernel, the CPU's features."""
    return {"NumPy": np.__version__, "BLAS": _blas(), "CPU": _cpu()}


@dataclass(frozen=True)
class Machine:
    """A machine's arithmetic: the `digests` of its parts, and its description by `describe`."""

    digests: Mapping[str, bytes]
    about: Mapping[str, str]

    @classmethod
    def here(cls, kind: str = "reproducible") -> Machine:
        """This machine with one of the `KINDS` of arithmetic."""
        return cls(digests(kind), describe())

    def differences(self, other: Machine) -> str:
        """The parts whose digests differ, and how the machines differ, in words; empty if they agree."""
        parts = [name for name, value in self.digests.items() if other.digests.get(name) != value]
        if not parts:
            return ""
        found = []
        for name, here in self.about.items():
            there = other.about.get(name, "unknown")
            if here != there:
                found.append(f"{name} {_without(there, here)} there and {_without(here, there)} here")
        return f"other bits in {', '.join(parts)} ({'; '.join(found) or 'NumPy, BLAS and CPU are the same'})"


UNKNOWN_MACHINE = Machine({}, {})
"""A machine about which nothing is known."""


def _without(text: str, other: str) -> str:
    """The words of a description that the other one does not have."""
    return " ".join(word for word in text.split() if word not in other.split()) or "less"


def _hashed(results: list[NDArray[Any]]) -> bytes:
    h = hashlib.blake2b(digest_size=DIGEST_BYTES, usedforsecurity=False)
    for result in results:
        little = result.dtype.newbyteorder("<")
        h.update(np.ascontiguousarray(result, dtype=little).data)
    return h.digest()


def _numbers(*shape: int) -> Floats:
    """Fixed numbers between −1 and 1."""
    size, state = int(np.prod(shape)), 1
    values = np.empty(size)
    for i in range(size):
        state = (_MULTIPLIER * state + _INCREMENT) % 2**64
        values[i] = (state >> 11) * 2.0**-52 - 1.0
    return values.reshape(shape)


def _ieee() -> list[NDArray[Any]]:
    """Single operations on normal and subnormal numbers, in float64 and float32."""
    results: list[NDArray[Any]] = []
    for dtype, least in ((np.float64, -1060), (np.float32, -140)):
        x: NDArray[Any] = _numbers(67).astype(dtype)
        y = x[::-1].copy()
        tiny = np.ldexp(x, least).astype(dtype)
        results += [x + y, x * y, x / y, np.sqrt(np.abs(x)), tiny * y, tiny / y, tiny + tiny[::-1]]
    results.append(_numbers(67).astype(np.float32))
    return results


def _sums() -> list[NDArray[Any]]:
    x = _numbers(1001)
    return [sums.total(x), sums.total(x.reshape(7, 143), 1), sums.mean(x), sums.norm(x)]


def _products() -> list[NDArray[Any]]:
    A, B = _numbers(60, 61), np.ldexp(_numbers(61, 59), np.arange(59, dtype=np.int32) - 30)
    thin = A.astype(np.float32)
    return [
        products.matmul(A, B),
        products.gram(A),
        products.matmul(A, B[:, 0]),
        products.matmul(A[0], B),
        products.matmul(A[:5], B),
        products.matmul(thin, thin[0]),
        products.matmul(A.reshape(20, 3, 61), B[:, :2]),
    ]


def _elementary() -> list[NDArray[Any]]:
    x = _numbers(500) * np.ldexp(1.0, np.arange(500, dtype=np.int32) % 60 - 50)
    functions = (elementary.exp, elementary.expm1, elementary.log1p, elementary.expit, elementary.softplus)
    return [*(f(x) for f in functions), elementary.log(np.abs(x))]


def _spectral() -> list[NDArray[Any]]:
    A = _numbers(13, 9)
    return [*spectral.eigh(products.gram(A)), *spectral.svd(A), *spectral.svd(_numbers(3, 4, 6))]


def _solving() -> list[NDArray[Any]]:
    S = products.gram(_numbers(3, 9, 12))
    return [solving.cholesky(S), solving.solve(S, _numbers(3, 9)), solving.triangular_factor(_numbers(40, 6))]


def _lapack() -> list[NDArray[Any]]:
    """The BLAS and LAPACK functions that couplings use under fast arithmetic, on one thread as in a run."""
    A = _numbers(60, 61)
    with single_threaded():
        S = np.matmul(A, A.T)
        return [S, *np.linalg.eigh(S), *np.linalg.svd(A), np.linalg.qr(A, mode="r")]


_PARTS: dict[str, Callable[[], list[NDArray[Any]]]] = {
    "IEEE operations": _ieee,
    "sums": _sums,
    "products": _products,
    "elementary functions": _elementary,
    "spectral decompositions": _spectral,
    "solving": _solving,
}

_FAST_PARTS: dict[str, Callable[[], list[NDArray[Any]]]] = {"BLAS and LAPACK": _lapack}


def _blas() -> str:
    """The loaded BLAS library that NumPy uses."""
    found = [
        " ".join(str(pool[key]) for key in ("internal_api", "version", "architecture") if pool.get(key))
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return "; ".join(found) or "unknown"


def _cpu() -> str:
    """The architecture, and the features of the CPU that NumPy uses."""
    core: Any = getattr(np, "_core", None) or getattr(np, "core", None)
    features: Mapping[str, bool] = getattr(core._multiarray_umath, "__cpu_features__", {})
    names = [name for name, there in features.items() if there]
    return " ".join([platform.machine(), *sorted(names)])
