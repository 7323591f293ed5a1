from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.typing import NDArray

from asyncdmtl.arithmetic import elementary

Floats = NDArray[np.float64]
Oracle = Callable[[Decimal], Decimal]

ORACLES: dict[str, tuple[Oracle, float]] = {
    "exp": (lambda x: x.exp(), 1.0),
    "expm1": (lambda x: x.exp() - 1, 2.0),
    "log": (lambda x: x.ln(), 1.0),
    "log1p": (lambda x: (1 + x).ln(), 2.0),
    "expit": (lambda x: 1 / (1 + (-x).exp()), 2.0),
    "softplus": (lambda x: (1 + x.exp()).ln(), 2.0),
}


def arguments(name: str) -> Floats:
    rng = np.random.default_rng(7)
    signed = [rng.normal(size=50), rng.normal(size=50) * 2.0 ** rng.integers(-60, 9, 50)]
    x = np.concatenate([*signed, rng.uniform(-700, 700, 50), [1e-17, -1e-17, 0.3465735, -0.3465736, 0.5]])
    if name == "log":
        return np.concatenate([np.abs(x), np.array([1.0 - 2**-53, 1.0 + 2**-52, 5e-324, 1e-310, 1.7e308])])
    if name == "log1p":
        return np.concatenate([x[x > -1.0], [2**-53 - 1.0, 1e300]])
    return x


@pytest.mark.parametrize("name", ORACLES)
def test_errors_are_few_units_in_the_last_place(name: str) -> None:
    oracle, most = ORACLES[name]
    x = arguments(name)
    with localcontext() as context:
        # The precision of references: enough digits that 1 + eˣ and 1 + x keep the small part.
        context.prec = 340
        context.Emin, context.Emax = -999999, 999999
        for argument, result in zip(x.tolist(), getattr(elementary, name)(x).tolist(), strict=True):
            exact = oracle(Decimal(argument))
            unit = Decimal(math.ulp(float(exact)))
            assert abs(Decimal(result) - exact) <= Decimal(most) * unit, argument


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        (
            "exp",
            [0.0, -0.0, np.inf, -np.inf, 709.79, -745.2, -745.0],
            [1.0, 1.0, np.inf, 0.0, np.inf, 0.0, 5e-324],
        ),
        ("expm1", [0.0, np.inf, -np.inf, 5e-324, -50.0], [0.0, np.inf, -1.0, 5e-324, -1.0]),
        ("log", [1.0, 0.0, -0.0, np.inf, -1.0, -np.inf], [0.0, -np.inf, -np.inf, np.inf, np.nan, np.nan]),
        ("log1p", [0.0, -1.0, np.inf, -2.0, 5e-324], [0.0, -np.inf, np.inf, np.nan, 5e-324]),
        ("expit", [0.0, np.inf, -np.inf, 800.0, -800.0], [0.5, 1.0, 0.0, 1.0, 0.0]),
        ("softplus", [np.inf, -np.inf, 1e300, -800.0], [np.inf, 0.0, 1e300, 0.0]),
    ],
)
def test_ends(name: str, x: list[float], expected: list[float]) -> None:
    function = getattr(elementary, name)
    assert np.array_equal(function(np.array(x)), np.array(expected), equal_nan=True)
    assert np.isnan(function(np.array([np.nan]))).all()


@pytest.mark.parametrize("name", ORACLES)
def test_every_number_is_by_itself(name: str) -> None:
    x = arguments(name)
    x = x[: x.size // 6 * 6].reshape(2, -1, 3)
    function = getattr(elementary, name)
    together = function(x)
    assert np.array_equal(together, np.array([function(np.array(v)) for v in x.ravel()]).reshape(x.shape))
    assert np.array_equal(together[:, ::2], function(x[:, ::2]))
