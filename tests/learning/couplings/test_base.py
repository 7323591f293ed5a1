from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from asyncdmtl.arithmetic.kinds import ARITHMETICS, REPRODUCIBLE
from asyncdmtl.learning.couplings.base import Coupling, NoCoupling, quadratic_critical_strength


def test_without_coupling_models_and_objective_are_left_alone() -> None:
    W = np.random.default_rng(0).standard_normal((3, 4))
    coupling = NoCoupling(1e9)
    assert (coupling.prox(W, 2.0) == W).all()
    assert coupling.penalty(W) == 0.0
    assert coupling.critical_strength(W, 1.0) == 0.0
    assert coupling.columnwise


def test_a_step_of_any_coupling_needs_all_aggregates_unless_it_says_otherwise() -> None:
    assert (NoCoupling(0.0).mixing(3) == np.eye(3)).all()


def test_a_coupling_needs_penalty_prox_and_critical_strength() -> None:
    class Unfinished(Coupling):
        summary = "unfinished"

    with pytest.raises(TypeError, match="abstract method"):
        Unfinished(1.0)  # type: ignore[abstract]


def test_couplings_are_values() -> None:
    assert NoCoupling(1.0) == NoCoupling(1.0) != NoCoupling(2.0)
    assert NoCoupling(1.0).arithmetic is REPRODUCIBLE
    assert NoCoupling(1.0, arithmetic=ARITHMETICS["fast"]) != NoCoupling(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        NoCoupling(1.0).strength = 2.0  # type: ignore[misc]


def test_the_scale_of_squares_is_ten_times_the_smoothness() -> None:
    assert quadratic_critical_strength(np.ones((2, 2)), 0.5) == 5.0
    assert quadratic_critical_strength(np.zeros((2, 2)), 0.5) == 0.0
