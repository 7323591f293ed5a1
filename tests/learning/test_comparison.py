from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.batches import make_batches
from asyncdmtl.learning.candidates import CandidatesWire
from asyncdmtl.learning.comparison import Comparison
from asyncdmtl.learning.curvature import ALPHAS
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Partition, whole_tasks
from asyncdmtl.learning.training import make_trainer

TASKS, FEATURES = 3, 2


def rows(loss: str, *, one_class: bool = False) -> list[Partition]:
    rng = np.random.default_rng(5)
    made = []
    for t in range(TASKS):
        X = rng.normal(size=(30, FEATURES))
        y = X @ [1.0, -1.0] + 0.3 * t + rng.normal(size=30)
        if loss != "huber":
            y = np.ones(30) if one_class and t == 0 else (y > 0.0).astype(np.float64)
        made += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return made


def problem_of(partitions: list[Partition], loss: str, strength: float | None = None) -> Problem:
    settings = make_settings(
        loss=loss, coupling="mean-regularised", strength=strength, update="newton", rounds=40, tolerance=1e-6,
        dtype="float64", folds=2,
    )  # fmt: skip
    return Problem(settings, [replace(p.info(settings), held=1) for p in partitions])


def told(problem: Problem, comparison: Comparison, partitions: list[Partition]) -> np.ndarray:
    """What all tasks tell."""
    assert isinstance(problem.wire, CandidatesWire)
    out = np.zeros((len(partitions), problem.wire.compared))
    for batch in make_batches(partitions, list(problem.task_of)):
        comparison.describe(batch, comparison.inverses(), out)
    return np.array([problem.aggregate(t, out[list(S)]) for t, S in enumerate(problem.partitions_of)])


def trained(problem: Problem, partitions: list[Partition]) -> Comparison:
    comparison = Comparison(problem)
    for _ in range(40):
        comparison.take(told(problem, comparison, partitions))
        if comparison.near:
            return comparison
    raise AssertionError("it does not end")


@pytest.mark.parametrize("loss", ["logistic", "huber", "squared_hinge"])
def test_models_are_at_the_minimum_and_alpha_has_the_least_left_out_loss(loss: str) -> None:
    partitions = rows(loss)
    problem = problem_of(partitions, loss)
    comparison = trained(problem, partitions)
    models = comparison.coefficients()
    assert models.shape == (TASKS + 1, FEATURES + 1)
    whole = [*whole_tasks(partitions).values()]
    every = Partition("all", "all", *(np.concatenate([getattr(p, k) for p in whole]) for k in ("X", "y")))
    for task, (*w, b) in zip([*whole, every], models.tolist(), strict=True):
        X = np.column_stack([task.X, np.ones(task.rows)])
        _, slopes = LOSSES[loss].value_and_derivative(X @ [*w, b], task.y)
        gradient = slopes @ X / task.rows
        # The free intercept is at its best, and the penalty's gradient is along the coefficients.
        assert gradient[-1] == pytest.approx(0.0, abs=1e-2)
        alpha = -gradient[:-1] @ w / np.dot(w, w)
        assert alpha > -1e-3
        np.testing.assert_allclose(gradient[:-1], -alpha * np.array(w), atol=2e-2)


def test_left_out_losses_are_near_those_of_models_without_each_row() -> None:
    partitions = rows("logistic")
    problem = problem_of(partitions, "logistic")
    comparison = trained(problem, partitions)
    block = told(problem, comparison, partitions).reshape(TASKS, 2, len(ALPHAS), -1)
    task = whole_tasks(partitions)["t1"]
    a = 3
    unit = 0.25 * np.square(task.X).sum() / task.rows / FEATURES
    left_out = []
    for i in range(task.rows):
        kept = np.arange(task.rows) != i
        X = np.column_stack([task.X, np.ones(task.rows)])
        w = np.zeros(FEATURES + 1)
        penalty = ALPHAS[a] * unit * np.array([1.0] * FEATURES + [0.0])
        for _ in range(30):
            p = 1.0 / (1.0 + np.exp(-X[kept] @ w))
            H = (X[kept].T * (p * (1.0 - p))) @ X[kept] / task.rows + np.diag(penalty)
            w -= np.linalg.solve(H, X[kept].T @ (p - task.y[kept]) / task.rows + penalty * w)
        values, _ = LOSSES["logistic"].value_and_derivative(X[i : i + 1] @ w, task.y[i : i + 1])
        left_out.append(float(values[0]))
    assert block[1, 0, a, 0] == pytest.approx(np.mean(left_out), rel=0.02)


def test_a_task_of_one_class_has_the_odds_of_one_row_more() -> None:
    partitions = rows("logistic", one_class=True)
    models = trained(problem_of(partitions, "logistic"), partitions).coefficients()
    assert models[0].tolist() == pytest.approx([0.0, 0.0, np.log(31.0)])


def test_goes_on_from_its_state_to_the_same_bits() -> None:
    partitions = rows("huber")
    problem = problem_of(partitions, "huber")
    one, other = Comparison(problem), Comparison(problem)
    one.take(told(problem, one, partitions))
    other.restore(one.state())
    for each in (one, other):
        each.take(told(problem, each, partitions))
    assert one.state().tobytes() == other.state().tobytes()
    with pytest.raises(UsageError, match="finite models to compare with"):
        other.restore(np.full(len(one.state()), np.nan))


@pytest.mark.parametrize("strength", [None, 0.1])
def test_trainers_have_them_beside_the_models_of_the_run(strength: float | None) -> None:
    partitions = rows("logistic")
    problem = problem_of(partitions, "logistic", strength)
    trainer = make_trainer(problem, dict(enumerate(partitions)))
    packed = np.empty((len(partitions), problem.wire.length))
    for _ in range(2):
        trainer.packed_updates(packed)
        trainer.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
    assert set(trainer.baselines()) == {"single_task", "pooled"}
    state = trainer.state()
    assert len(state) == problem.state_bytes
    late = make_trainer(problem, {})
    late.restore(state)
    assert late.state().tobytes() == state.tobytes()
    for kind, models in trainer.baselines().items():
        assert models.coef_.tobytes() == late.baselines()[kind].coef_.tobytes()


def test_models_of_the_run_are_those_without_a_comparison() -> None:
    partitions = rows("logistic", one_class=True)
    problem = problem_of(partitions, "logistic", 0.1)
    plain = Problem(problem.settings, [p.info(problem.settings) for p in partitions])
    assert problem.wire.length > plain.wire.length
    found = []
    for each in (problem, plain):
        trainer = make_trainer(each, dict(enumerate(partitions)))
        packed = np.empty((len(partitions), each.wire.length))
        for _ in range(6):
            trainer.packed_updates(packed)
            trainer.step([each.aggregate(t, packed[list(S)]) for t, S in enumerate(each.partitions_of)])
        found.append(trainer.W.tobytes())
    assert found[0] == found[1]
    # The run goes on until the models to compare with are near their optima, too.
    assert np.isfinite(trainer.residual)


def test_holders_of_one_task_are_told_all_that_they_need_of_its_models() -> None:
    partitions = rows("logistic")
    problem = problem_of(partitions, "logistic", 0.1)
    server = make_trainer(problem, {})
    own = [n for n in range(len(partitions)) if problem.task_of[n] == 1]
    holder = make_trainer(problem, {n: partitions[n] for n in own})
    rest = make_trainer(problem, {n: p for n, p in enumerate(partitions) if n not in own})
    updates = np.empty((len(partitions), problem.wire.length))
    length, dtype = problem.told
    for _ in range(3):
        for trainer in (holder, rest):
            packed = np.empty((len(trainer.own), problem.wire.length))
            trainer.packed_updates(packed)
            updates[list(trainer.own)] = packed
        server.step([problem.aggregate(t, updates[list(S)]) for t, S in enumerate(problem.partitions_of)])
        told = server.told(last=False)
        assert told.shape == (TASKS, length)
        assert dtype == np.uint8
        holder.take_told([1], told[[1]])
        rest.take_told([0, 2], told[[0, 2]])
    twin = make_trainer(problem, dict(enumerate(partitions)))
    packed = np.empty((len(partitions), problem.wire.length))
    for _ in range(3):
        twin.packed_updates(packed)
        twin.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
    for kind, models in twin.baselines().items():
        assert holder.baselines()[kind].coef_[1].tobytes() == models.coef_[1].tobytes()
        assert rest.baselines()[kind].coef_[[0, 2]].tobytes() == models.coef_[[0, 2]].tobytes()
