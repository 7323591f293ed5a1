from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.batches import make_batches
from asyncdmtl.learning.candidate_trainer import CandidateTrainer
from asyncdmtl.learning.candidates import ALPHAS, CandidatesWire
from asyncdmtl.learning.comparison import Comparison
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Partition, whole_tasks

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


def problem_of(partitions: list[Partition], loss: str) -> Problem:
    settings = make_settings(
        loss=loss, coupling="mean-regularised", strength=None, update="newton", rounds=40, tolerance=1e-6,
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


def test_the_trainer_has_them_beside_the_candidates() -> None:
    partitions = rows("logistic")
    problem = problem_of(partitions, "logistic")
    trainer = CandidateTrainer(problem, dict(enumerate(partitions)))
    packed = np.empty((len(partitions), problem.wire.length))
    for _ in range(2):
        trainer.packed_updates(packed)
        trainer.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
    assert set(trainer.baselines()) == {"single_task", "pooled"}
    state = trainer.state()
    assert len(state) == problem.state_bytes
    late = CandidateTrainer(problem, {})
    late.restore(state)
    assert late.state().tobytes() == state.tobytes()
    for kind, models in trainer.baselines().items():
        assert models.coef_.tobytes() == late.baselines()[kind].coef_.tobytes()
