from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.couplings.checked import Checked

W = np.arange(6.0).reshape(2, 3)


class Own(Coupling):
    summary = "returns what a test says"
    columnwise = True
    prox_result: Any = None
    number: Any = 1.0

    def penalty(self, W: Floats) -> float:
        number: float = self.number
        return number

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        found: Floats = W / 2.0 if self.prox_result is None else self.prox_result
        W[...] = 7.0  # as a careless hook may do
        return found

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        number: float = self.number
        return number


def checked(**results: Any) -> Checked:
    return Checked(0.5, "own", type("Own", (Own,), results)(0.5))


def test_good_results_are_passed_on() -> None:
    coupling, given = checked(), W.copy()
    assert coupling.columnwise
    assert coupling.penalty(W) == coupling.critical_strength(W, 1.0) == 1.0
    assert coupling.prox(given, 0.1).tolist() == (W / 2.0).tolist()
    assert given.tolist() == W.tolist()
    assert coupling.prox(given, 0.1, out=given) is given
    assert given.tolist() == (W / 2.0).tolist()
    assert coupling.prox(W.astype(np.float32), 0.1).dtype == np.float32
    assert checked(number=math.inf).penalty(W) == math.inf


@pytest.mark.parametrize("result", [W[:1], W.astype(int), None.__class__, W * np.nan])
def test_a_prox_of_another_shape_or_with_nan_is_refused(result: Any) -> None:
    with pytest.raises(UsageError, match="prox of the coupling own must return"):
        checked(prox_result=result).prox(W, 0.1)


@pytest.mark.parametrize("result", [math.nan, -1.0, "1", np.ones(2)])
def test_numbers_are_numbers(result: Any) -> None:
    with pytest.raises(UsageError, match="penalty of the coupling own must return a number of at least 0"):
        checked(number=result).penalty(W)
    with pytest.raises(UsageError, match="critical_strength of the coupling own must return a number"):
        checked(number=result).critical_strength(W, 1.0)


@pytest.mark.parametrize("result", [np.eye(3), np.ones(2), [[1.0, 0.0], [0.0, 1.0]]])
def test_a_mixing_has_a_column_for_each_task(result: Any) -> None:
    assert checked().mixing(2).tolist() == np.eye(2).tolist()
    with pytest.raises(UsageError, match="mixing of the coupling own must return a matrix of 2 columns"):
        checked(mixing=lambda self, tasks: result).mixing(2)
