from __future__ import annotations

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.learning.couplings.group_sparse import L21Norm
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.zero_models import ZeroModels


def test_the_critical_strength_is_known_while_all_coefficients_are_0() -> None:
    settings = make_settings(coupling="nuclear", strength=5.0)
    problem = Problem(settings, [part.info(settings) for part in make_partitions(2, "squared", features=2)])
    zeros, W = ZeroModels(problem), np.zeros((1, 3))
    gradients = np.array([[3.0, 4.0]])
    assert zeros.critical_strength is None
    W[0, -1] = 1.0  # an intercept is no coefficient
    zeros.note(W, lambda: gradients)
    assert zeros.critical_strength == pytest.approx(5.0)
    zeros.note(W, lambda: gradients, L21Norm(0.0))
    assert zeros.critical_strength == pytest.approx(4.0)
    zeros.forget()
    assert zeros.critical_strength is None
    zeros.note(W, lambda: gradients)
    W[0, 0] = 1e-300
    zeros.note(W, lambda: gradients)
    assert zeros.critical_strength is None
