from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train

SIGNS = np.array([1.0, -1.0])
PARTITIONS = make_partitions(6, "squared", features=2)


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
@pytest.mark.parametrize("coupling", [name for name in COUPLINGS if name != "graph"])
def test_one_round_reaches_what_gradients_reach_in_thousands(coupling: str, intercept: str) -> None:
    changes = {"coupling": coupling, "intercept": intercept, "dtype": "float64", "strength": 0.1}
    solved = train(PARTITIONS, make_settings(update="statistics", **changes))
    slow = train(PARTITIONS, make_settings(rounds=20_000, tolerance=1e-9, **changes))
    assert solved.converged
    assert len(solved.objectives) == 1
    assert solved.outcome is not None
    np.testing.assert_allclose(solved.outcome.objective, slow.objectives[-1], rtol=2e-6)
    for p in PARTITIONS:
        np.testing.assert_allclose(
            solved.models.predict(p.X, p.task), slow.models.predict(p.X, p.task), atol=3e-3
        )
    assert solved.outcome.gap <= 1e-10 * solved.outcome.objective


def test_models_are_of_the_dtype_of_the_run() -> None:
    single = train(PARTITIONS, make_settings(update="statistics", dtype="float32")).models
    double = train(PARTITIONS, make_settings(update="statistics", dtype="float64")).models
    np.testing.assert_array_equal(single.coef_, double.coef_.astype(np.float32))


def test_strength_and_coupling_are_chosen_on_the_way() -> None:
    found = train(PARTITIONS, make_settings(update="auto", coupling="auto", strength=None, folds=3)).outcome
    assert found is not None
    assert list(found.selections) == ["nuclear", "mean-regularised"]
    assert found.selections[found.coupling].strength == found.strength
    fixed = make_settings(update="statistics", coupling=found.coupling, strength=found.strength)
    again = train(PARTITIONS, fixed).outcome
    assert again is not None
    np.testing.assert_allclose(again.objective, found.objective, rtol=1e-9)


def test_an_outcome_is_what_it_was_told_as() -> None:
    found = train(PARTITIONS, make_settings(update="auto", strength=None)).outcome
    assert found is not None
    again = Outcome.from_dict(found.as_dict())
    assert (again.coupling, again.strength, again.objective, again.gap) == (
        found.coupling,
        found.strength,
        found.objective,
        found.gap,
    )
    np.testing.assert_array_equal(again.selections["nuclear"].losses, found.selections["nuclear"].losses)
    assert again.selections["nuclear"].strength == found.selections["nuclear"].strength


@pytest.mark.parametrize(
    "change",
    [
        {"coupling": None},
        {"strength": "x"},
        {"selections": 3},
        {"selections": {"nuclear": {"strengths": [1]}}},
    ],
    ids=str,
)
def test_an_outcome_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    content = {"coupling": "nuclear", "strength": 1.0, "objective": 1.0, "gap": 0.0, "selections": {}}
    if change == {"coupling": None}:
        content.pop("coupling")
    with pytest.raises(UsageError, match="outcome"):
        Outcome.from_dict(content | change if change != {"coupling": None} else content)


def test_models_must_fit_the_dtype() -> None:
    tiny = Partition("p", "t", 1e-30 * SIGNS[:, None], 1e15 * SIGNS)
    with pytest.raises(DataError, match="must stay finite in float32"):
        train([tiny], make_settings(update="statistics", coupling="none", dtype="float32"))
