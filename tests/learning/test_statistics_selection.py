import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError
from asyncdmtl.learning.couplings.registry import make_coupling
from asyncdmtl.learning.settings import Choice
from asyncdmtl.learning.statistics import Layout, TaskStatistics, deal, statistics
from asyncdmtl.learning.statistics_selection import Selection, choose, choose_strength, is_over, path_from
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train

FEATURES, FOLDS = 4, 3


def low_rank_tasks(count: int = 6, rows: int = 15) -> list[Partition]:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(count, 1)) @ rng.normal(size=(1, FEATURES))
    found = []
    for t, w in enumerate(W):
        X = rng.normal(size=(rows, FEATURES))
        found.append(Partition(f"p{t}", f"t{t}", X, X @ w + 1.0 + rng.normal(size=rows)))
    return found


def told(partitions: list[Partition]) -> TaskStatistics:
    layout = Layout(FEATURES, FOLDS)
    return TaskStatistics.of([statistics(p, layout, 0) for p in partitions], layout)


def held_out(partitions: list[Partition], coupling: str, strength: float) -> Floats:
    """The mean loss of each fold's rows after training by gradients on the other rows."""
    losses = []
    for fold in range(FOLDS):
        kept = [(p, deal(p, FOLDS, 0) != fold) for p in partitions]
        settings = make_settings(
            coupling=coupling, strength=strength, rounds=3000, tolerance=1e-9, dtype="float64"
        )
        models = train([Partition(p.id, p.task, p.X[k], p.y[k]) for p, k in kept], settings).models
        each = [0.5 * np.mean((p.y[~k] - models.predict(p.X[~k], p.task)) ** 2) for p, k in kept]
        losses.append(np.mean(each))
    return np.array(losses)


@pytest.mark.parametrize("coupling", ["nuclear", "mean-regularised"])
def test_losses_are_those_of_training_on_the_other_rows(coupling: str) -> None:
    partitions = low_rank_tasks()
    found = choose_strength(told(partitions), make_coupling(coupling, 0.0), "free", 1.0, [0.3, 0.03])
    np.testing.assert_array_equal(found.strengths, [0.3, 0.03])
    for strength, losses in zip(found.strengths, found.losses, strict=True):
        np.testing.assert_allclose(losses, held_out(partitions, coupling, float(strength)), rtol=1e-3)
    assert found.strength == found.strengths[np.argmin(found.means)]


def test_of_choices_the_one_with_the_least_loss_is_taken() -> None:
    kinds = [("nuclear", "free"), ("mean", "free"), ("none", "free"), ("nuclear", "penalised")]
    choices = [Choice(*kind) for kind in kinds]
    candidates = [(choice, make_coupling(choice.coupling, 0.0)) for choice in choices]
    # Only the best coupling is tried with another intercept.
    beaten = (Choice("none", "penalised"), make_coupling("none", 0.0))
    best, found = choose(told(low_rank_tasks()), [*candidates, beaten], 2.0)
    assert list(found) == choices
    assert best.coupling == "nuclear"
    assert found[best].loss == min(each.loss for each in found.values())
    assert len(found[choices[1]].strengths) == len(found[choices[2]].strengths) == 1


def test_a_gain_is_that_of_pairs_of_folds() -> None:
    own = Selection(0.1, np.array([1.0, 0.1]), np.array([[9.0, 9.0, 9.0], [1.0, 3.0, np.nan]]))
    other = Selection(1.0, np.ones(1), np.array([[2.0, 6.0, 5.0]]))
    # Gains of 1 and 3: their mean is 2, their standard deviation √2, and that of the mean 1.
    assert own.gain_over(other) == pytest.approx((2.0, 1.0))


def test_the_path_goes_down_three_to_a_factor_of_ten() -> None:
    path = path_from(5.0)
    assert path[0] == 5.0
    np.testing.assert_allclose(path[3], 0.5)
    assert path_from(0.0) == [0.0]


def test_it_ends_where_smaller_strengths_are_no_better() -> None:
    assert not is_over(np.array([3.0, 2.0, 1.0]))
    assert is_over(np.array([3.0, 1.0, 1.1, 1.2, 1.3]))
    assert not is_over(np.array([3.0, 2.0, 1.5, 1.2, 1.0]))


def test_standard_errors_and_the_strongest_coupling_within_one() -> None:
    losses = np.array([[3.0, 3.4], [2.0, 2.4], [1.9, 2.3]])
    found = Selection(0.1, np.array([10.0, 1.0, 0.1]), losses)
    np.testing.assert_allclose(found.means, [3.2, 2.2, 2.1])
    np.testing.assert_allclose(found.errors, [0.2, 0.2, 0.2])
    assert found.parsimonious == 1.0


def test_folds_that_hold_out_nothing_do_not_count() -> None:
    found = Selection(1.0, np.array([1.0]), np.array([[2.0, np.nan, 4.0]]))
    assert found.loss == 3.0


def test_something_must_be_held_out() -> None:
    single = [Partition(f"p{t}", f"t{t}", np.ones((1, FEATURES)), np.ones(1)) for t in range(3)]
    with pytest.raises(DataError, match="two rows"):
        choose_strength(told(single), make_coupling("nuclear", 0.0), "free", 1.0)
