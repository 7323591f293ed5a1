from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_quick_settings, make_settings

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.outcome import Outcome, settled
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import AUTO_COUPLINGS
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import make_trainer, train

SIGNS = np.array([1.0, -1.0])
PARTITIONS = make_partitions(6, "squared", features=2)


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
@pytest.mark.parametrize("coupling", [name for name in COUPLINGS if name != "graph"])
def test_one_round_reaches_what_gradients_reach_in_thousands(coupling: str, intercept: str) -> None:
    changes = {"coupling": coupling, "intercept": intercept, "dtype": "float64", "strength": 0.1}
    solved = train(PARTITIONS, make_settings(update="statistics", **changes))
    slow = train(PARTITIONS, make_quick_settings(rounds=20_000, tolerance=1e-9, **changes))
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
    assert list(found.selections) == list(AUTO_COUPLINGS)
    assert found.selections[found.coupling].strength == found.strength
    fixed = make_settings(update="statistics", coupling=found.coupling, strength=found.strength)
    again = train(PARTITIONS, fixed).outcome
    assert again is not None
    np.testing.assert_allclose(again.objective, found.objective, rtol=1e-9)


def test_a_penalised_intercept_is_chosen_where_it_helps() -> None:
    # All tasks have the same model and intercept, and few rows.
    rng = np.random.default_rng(2)
    X = rng.normal(size=(9, 6, 3))
    y = X @ [1.0, -2.0, 0.5] + 5.0 + rng.normal(size=(9, 6))
    partitions = [Partition(f"p{t}", f"t{t}", X[t], y[t]) for t in range(9)]
    settings = make_settings(coupling="auto", strength=None, intercept="auto", update="auto", dtype="float64")
    found = train(partitions, settings)
    assert found.outcome is not None
    # Only the best coupling is tried with the other kind of intercept.
    assert len(found.outcome.selections) == len(AUTO_COUPLINGS) + 1
    assert found.outcome.intercept == "penalised"
    own = settled(settings, found.outcome)
    assert (own.intercept, own.coupling) == ("penalised", found.outcome.coupling)
    # The same problem, solved as it would be if the choice had been given.
    again = train(partitions, replace(own, update="statistics"))
    assert again.outcome is not None
    np.testing.assert_allclose(again.models.intercept_, found.models.intercept_, rtol=1e-9)
    assert again.outcome.objective == pytest.approx(found.outcome.objective, rel=1e-12)


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


def outcome_of(trainer: Trainer) -> dict[str, Any] | None:
    return None if trainer.outcome is None else trainer.outcome.as_dict()


def test_a_state_holds_the_solution_and_what_came_of_it() -> None:
    settings = make_settings(coupling="auto", strength=None, update="auto", folds=3)
    infos = [replace(part.info(settings), held=1) for part in PARTITIONS]
    problem = Problem(settings, infos)
    solved = make_trainer(problem, dict(enumerate(PARTITIONS)))
    packed = np.empty((len(PARTITIONS), problem.wire.length), problem.wire.dtype)
    solved.packed_updates(packed)
    begun = solved.state()
    solved.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
    state = solved.state()
    assert len(state) == len(begun) == problem.state_bytes
    late = make_trainer(problem, {})
    late.restore(begun)
    assert outcome_of(late) is None
    late.restore(state)
    assert outcome_of(late) == outcome_of(solved) is not None
    assert late.state().tobytes() == state.tobytes()
    assert late.penalty() == solved.penalty()
    for kind, models in solved.baselines().items():
        assert late.baselines()[kind].coef_.tobytes() == models.coef_.tobytes()
    broken = state.copy()
    broken[-8:] = 255
    with pytest.raises(UsageError, match="finite models to compare with"):
        late.restore(broken)
    with pytest.raises(UsageError, match="state must be"):
        late.restore(state[:-8])


def test_what_is_told_of_a_task_is_taken() -> None:
    settings = make_settings(update="statistics")
    problem = Problem(settings, [replace(part.info(settings), held=1) for part in PARTITIONS])
    solved = make_trainer(problem, dict(enumerate(PARTITIONS)))
    packed = np.empty((len(PARTITIONS), problem.wire.length), problem.wire.dtype)
    solved.packed_updates(packed)
    solved.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
    told = solved.told(last=True)
    assert told.shape == (3, problem.told[0] * problem.told[1].itemsize)
    taker = make_trainer(problem, {})
    taker.take_told([2], told[[2]])
    taker.take_told([], told[:0])
    for kind in ("single_task", "pooled"):
        theirs, own = solved.baselines()[kind].of([2]), taker.baselines()[kind].of([2])
        assert (own.coef_ == theirs.coef_).all()
        assert (own.intercept_ == theirs.intercept_).all()
    assert (taker.W[2] == solved.W[2]).all()
