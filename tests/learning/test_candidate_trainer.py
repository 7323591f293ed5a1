from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning import parallel, shared_solutions
from asyncdmtl.learning.candidate_trainer import CandidateTrainer
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.selection import _held_out_loss, _splits
from asyncdmtl.learning.settings import AUTO_COUPLINGS, Settings
from asyncdmtl.learning.tasks import Partition, whole_tasks
from asyncdmtl.learning.training import train

FEATURES, FOLDS = 3, 3


def labelled(tasks: int = 4, rows: int = 30) -> list[Partition]:
    rng, made = np.random.default_rng(0), []
    shared = rng.normal(size=FEATURES)
    for t in range(tasks):
        X = rng.normal(size=(rows, FEATURES))
        scores = X @ (shared + 0.3 * rng.normal(size=FEATURES)) - 1.0
        y = (scores + rng.logistic(size=rows) > 0.0).astype(np.float64)
        made += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return made


def choosing(**changes: Any) -> Settings:
    given = {"loss": "logistic", "coupling": "mean-regularised", "strength": None, "update": "auto",
             "rounds": 40, "tolerance": 1e-9, "dtype": "float64", "folds": FOLDS}  # fmt: skip
    return make_settings(**(given | changes))


def test_chooses_as_separate_fits_do_and_ends_at_the_optimum() -> None:
    partitions, settings = labelled(), choosing()
    trained = train(partitions, settings)
    assert trained.converged
    assert len(trained.objectives) <= 12
    assert trained.outcome is not None
    found = trained.outcome.selections["mean-regularised"]
    fit = replace(settings, update="newton", tolerance=1e-9)
    for at in (2, 5):
        fit = replace(fit, strength=float(found.strengths[at]))
        for fold, (kept, held) in enumerate(_splits(partitions, FOLDS, settings)):
            loss = _held_out_loss(train(kept, fit).models, held, "logistic")
            np.testing.assert_allclose(found.losses[at, fold], loss, rtol=3e-3)
    # From here on losses grow with every step, and candidates are not trained to the end.
    assert (found.means[6:] > 1.1 * found.means.min()).all()
    assert found.strength == found.strengths[np.argmin(found.means)]
    alone = train(partitions, replace(fit, strength=found.strength))
    assert trained.outcome.objective == pytest.approx(alone.objectives[-1], rel=1e-8)
    np.testing.assert_allclose(trained.models.coef_, alone.models.coef_, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "huber"},
        {"loss": "squared_hinge"},
        {"coupling": "auto", "intercept": "penalised", "arithmetic": "fast"},
    ],
    ids=str,
)
def test_other_losses_and_intercepts_end_too(changes: dict[str, str]) -> None:
    trained = train(labelled(3, 20), choosing(tolerance=1e-6, **changes))
    assert trained.converged
    assert trained.outcome is not None


def test_candidates_in_threads_have_the_bits_of_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions, settings = labelled(3, 20), choosing(tolerance=1e-6)
    alone = train(partitions, settings)
    parallel._pool.cache_clear()
    monkeypatch.setattr(parallel, "cores", lambda: 3)
    monkeypatch.setattr(parallel, "_LEAST_NUMBERS", 0)
    monkeypatch.setattr(shared_solutions, "_SOLVED", {})
    together = train(partitions, settings)
    assert together.models.coef_.tobytes() == alone.models.coef_.tobytes()
    assert list(together.objectives) == list(alone.objectives)


def test_single_task_and_pooled_training_compete_with_couplings() -> None:
    rng = np.random.default_rng(0)
    w, X = np.array([0.5, -0.5]), rng.normal(size=(3, 20, 2))
    y = (X @ w + rng.logistic(size=(3, 20)) > 0.0).astype(np.float64)
    partitions = [Partition(f"p{t}", f"t{t}", X[t], y[t]) for t in range(3)]
    settings = choosing(coupling="auto", intercept="auto", folds=2, tolerance=1e-6, arithmetic="fast")
    outcome = train(partitions, settings).outcome
    assert outcome is not None
    *first, second = outcome.selections
    assert tuple(first) == AUTO_COUPLINGS
    leading = min(first, key=lambda name: outcome.selections[name].loss)
    assert second == f"{leading}, penalised intercept"
    assert outcome.selections["none"].strengths.tolist() == [0.0]
    # The true models are equal.
    assert outcome.selections["mean"].loss < outcome.selections["none"].loss


def alike(rows: int, shift: float, seed: int) -> list[Partition]:
    """Tasks with equal intercepts; all rows of the last are of one class."""
    rng, w = np.random.default_rng(seed), np.array([1.0, -1.0])
    X = rng.normal(size=(5, rows, 2))
    y = (X @ w + shift + rng.logistic(size=(5, rows)) > 0.0).astype(np.float64)
    y[4] = 1.0
    return [Partition(f"p{t}", f"t{t}", X[t], y[t]) for t in range(5)]


@pytest.mark.parametrize(("loss", "given"), [("logistic", (8, 0.5, 3)), ("poisson", (6, 1.5, 2))])
def test_a_penalised_intercept_is_chosen_where_it_predicts_better(
    loss: str, given: tuple[int, float, int]
) -> None:
    partitions = alike(*given)
    settings = choosing(loss=loss, coupling="auto", intercept="auto", folds=2, arithmetic="fast")
    trained = train(partitions, settings)
    outcome = trained.outcome
    assert outcome is not None
    assert outcome.intercept == "penalised"
    name = f"{outcome.coupling}, penalised intercept"
    assert outcome.selections[name].loss < outcome.selections[outcome.coupling].loss
    # The one-class task is trained, too: its loss counts, and nothing sets its intercept.
    fit = replace(settings, coupling=outcome.coupling, intercept="penalised", strength=outcome.strength)
    alone = train(partitions, fit)
    assert trained.objectives[-1] == pytest.approx(alone.objectives[-1], rel=1e-7)
    np.testing.assert_allclose(trained.models.intercept_, alone.models.intercept_, atol=1e-3)
    at = int(np.argmin(outcome.selections[name].means))
    kept, held = _splits(partitions, 2, settings)[0]
    expected = _held_out_loss(train(kept, fit).models, held, loss)
    np.testing.assert_allclose(outcome.selections[name].losses[at, 0], expected, rtol=3e-3)


def test_a_fold_without_positive_labels_is_no_obstacle() -> None:
    partitions = labelled()
    one = np.zeros(15)
    one[3] = 1.0
    for n, y in enumerate((one, np.zeros(15))):
        partitions[n] = Partition(f"p{n}", "t0", partitions[n].X, y)
    trained = train(partitions, choosing())
    assert trained.converged
    assert np.isfinite(trained.models.coef_).all()


def test_goes_on_from_a_state_to_the_same_bits() -> None:
    partitions = labelled(2, 12)
    settings = choosing(coupling="auto", intercept="auto", folds=2, arithmetic="fast")
    problem = Problem(settings, [p.info(settings) for p in partitions])
    one = CandidateTrainer(problem, dict(enumerate(partitions)))
    packed, again = (np.empty((len(partitions), problem.wire.length)) for _ in range(2))
    for _ in range(3):
        state = one.state()
        assert len(state) == problem.state_bytes
        other = CandidateTrainer(problem, dict(enumerate(partitions)))
        other.restore(state)
        np.testing.assert_array_equal(one.packed_updates(packed), other.packed_updates(again))
        np.testing.assert_array_equal(packed, again)
        Z = [problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)]
        one.step(Z)
        shared_solutions._SOLVED.clear()
        other.step(Z)
        np.testing.assert_array_equal(one.state(), other.state())
    with pytest.raises(UsageError, match="bytes"):
        one.restore(state[:-1])
    state[-16:] = 255
    with pytest.raises(UsageError):
        one.restore(state)


def test_of_several_members_in_one_process_one_computes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions, settings = labelled(2, 12), choosing(dtype="float32", seed=5)
    problem = Problem(settings, [p.info(settings) for p in partitions])
    members = [CandidateTrainer(problem, dict(enumerate(partitions))) for _ in range(2)]
    take, computed = CandidateTrainer._take, []

    def counted(trainer: CandidateTrainer, vectors: Floats) -> None:
        computed.append(trainer)
        take(trainer, vectors)

    monkeypatch.setattr(CandidateTrainer, "_take", counted)
    packed = np.empty((len(partitions), problem.wire.length))
    for _ in range(4):
        for member in members:
            member.packed_updates(packed)
        for member in members:
            member.step([problem.aggregate(t, packed[list(S)]) for t, S in enumerate(problem.partitions_of)])
        np.testing.assert_array_equal(members[0].state(), members[1].state())
    assert computed == [members[0]] * 4


def test_something_must_be_held_out() -> None:
    partitions = [Partition(f"p{t}", f"t{t}", np.ones((1, 2)), np.array([t % 2.0])) for t in range(3)]
    with pytest.raises(DataError, match="two rows"):
        train(partitions, choosing())


def test_the_first_round_tells_the_held_out_losses_of_intercepts_too() -> None:
    partitions, settings = labelled(), choosing(rounds=1)
    found = train(partitions, settings).outcome
    assert found is not None
    losses = found.selections["mean-regularised"].losses[0]
    for fold, (kept, held) in enumerate(_splits(partitions, FOLDS, settings)):
        expected = []
        for task in whole_tasks(held).values():
            share = np.mean(np.concatenate([p.y for p in kept if p.task == task.task]))
            values = np.where(task.y == 1.0, -np.log(share), -np.log1p(-share))
            expected.append(float(values.mean()))
        assert losses[fold] == pytest.approx(np.mean(expected), rel=1e-12)
