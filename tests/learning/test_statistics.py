import numpy as np
import pytest
from support.problems import make_partitions

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.statistics import Layout, TaskStatistics, deal, pool_all, statistics
from asyncdmtl.learning.tasks import Partition, merged

F = 3


def pair(rows: int = 12, *, weighted: bool = False, offset: float = 0.0) -> list[Partition]:
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2.0, size=(2, rows)) if weighted else [None, None]
    return [
        Partition(f"p{i}", "t", rng.normal(size=(rows, F)) + offset, rng.normal(size=rows), weights[i])
        for i in range(2)
    ]


def gathered(partitions: list[Partition], folds: int = 1, seed: int = 0) -> TaskStatistics:
    layout = Layout(F, folds)
    return TaskStatistics.of(
        [pool_all([statistics(p, layout, seed) for p in partitions], layout, "t")], layout
    )


def moments(X: Floats, y: Floats, weights: Floats, intercept: str) -> tuple[Floats, Floats, float]:
    if intercept == "free":
        X, y = X - np.average(X, axis=0, weights=weights), y - np.average(y, weights=weights)
    if intercept == "penalised":
        X = np.column_stack([X, np.ones(len(X))])
    shares = weights / weights.sum()
    return (X.T * shares) @ X, (X.T * shares) @ y, float(shares @ y**2)


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooled_statistics_are_those_of_all_rows(intercept: str, weighted: bool) -> None:
    partitions = pair(weighted=weighted, offset=3.0)
    whole = merged("t", partitions)
    weights = np.ones(whole.rows) if whole.weights is None else whole.weights
    A, b, c = moments(whole.X, whole.y, weights, intercept)
    made = gathered(partitions).whole(intercept)
    np.testing.assert_allclose(made.A[0, 0], A, atol=1e-13)
    np.testing.assert_allclose(made.b[0, 0], b, atol=1e-13)
    np.testing.assert_allclose(made.c[0, 0], c, atol=1e-13)


def test_a_common_offset_costs_no_digits() -> None:
    near, far = gathered(pair()), gathered(pair(offset=1e6))
    np.testing.assert_allclose(far.whole("free").A, near.whole("free").A, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("intercept", ["free", "penalised", "none"])
def test_the_rows_outside_of_each_fold(intercept: str) -> None:
    partitions, folds = pair(weighted=True), 4
    made = gathered(partitions, folds).without(intercept, 0.0)
    dealt = np.concatenate([deal(p, folds, 0) for p in partitions])
    whole = merged("t", partitions)
    assert whole.weights is not None
    for fold in range(folds):
        kept = dealt != fold
        A, b, c = moments(whole.X[kept], whole.y[kept], whole.weights[kept], intercept)
        np.testing.assert_allclose(made.A[fold, 0], A, atol=1e-6)
        np.testing.assert_allclose(made.b[fold, 0], b, atol=1e-6)
        np.testing.assert_allclose(made.c[fold, 0], c, atol=1e-6)


def test_held_out_loss_is_that_of_the_rows() -> None:
    partitions, folds = pair(weighted=True, offset=2.0), 3
    found = gathered(partitions, folds)
    rng = np.random.default_rng(5)
    W, b = rng.normal(size=(folds, 2, 1, F)), rng.normal(size=(folds, 2, 1))
    losses = found.held_out_loss(W, b)
    dealt = np.concatenate([deal(p, folds, 0) for p in partitions])
    whole = merged("t", partitions)
    assert whole.weights is not None
    for fold in range(folds):
        held = dealt == fold
        for i in range(2):
            scores = whole.X[held] @ W[fold, i, 0] + b[fold, i, 0]
            expected = np.average(0.5 * (whole.y[held] - scores) ** 2, weights=whole.weights[held])
            np.testing.assert_allclose(losses[fold, i], expected, rtol=1e-5)


def test_a_task_of_one_row_is_always_trained_on() -> None:
    only = Partition("p", "t", np.ones((1, F)), np.ones(1))
    found = gathered([only], 3)
    assert not found.held().any()
    np.testing.assert_allclose(found.without("none", 0.0).A, np.ones((3, 1, F, F)))
    assert np.isnan(found.held_out_loss(np.zeros((3, 1, 1, F)), np.zeros((3, 1, 1)))).all()


def test_intercepts_put_models_through_the_means() -> None:
    found = gathered(pair(offset=2.0))
    W = np.ones((1, 1, 1, F))
    whole = merged("t", pair(offset=2.0))
    expected = whole.y.mean() - whole.X.mean(axis=0).sum()
    np.testing.assert_allclose(found.intercepts(W, "free")[0, 0, 0], expected, rtol=1e-12)
    assert found.intercepts(W, "none").shape == (1, 1, 1)
    np.testing.assert_array_equal(found.intercepts(W, "penalised"), np.ones((1, 1, 1)))


def test_folds_are_even_and_depend_on_seed_and_name_alone() -> None:
    partition, other = pair(rows=23)
    dealt = deal(partition, 5, 7)
    assert sorted(np.bincount(dealt, minlength=5).tolist()) == [4, 4, 5, 5, 5]
    np.testing.assert_array_equal(dealt, deal(partition, 5, 7))
    assert (dealt != deal(partition, 5, 8)).any()
    assert (dealt != deal(other, 5, 7)).any()
    values = Partition(partition.id, "t", 2.0 * partition.X, partition.y)
    np.testing.assert_array_equal(dealt, deal(values, 5, 7))


def test_classes_are_dealt_evenly() -> None:
    y = (np.arange(40) < 10).astype(np.float64)
    dealt = deal(Partition("p", "t", np.ones((40, 1)), y), 5, 0)
    assert np.bincount(dealt[y == 1.0], minlength=5).tolist() == [2] * 5
    assert np.bincount(dealt[y == 0.0], minlength=5).tolist() == [6] * 5


def test_a_vector_is_what_it_was_made_of() -> None:
    layout = Layout(F, 3)
    blocks = np.random.default_rng(0).normal(size=(3, layout.numbers))
    vector = layout.pack(blocks, "p")
    assert vector.shape == (layout.size,)
    np.testing.assert_array_equal(layout.unpack(vector)[0], blocks[0])
    np.testing.assert_allclose(layout.unpack(vector)[1:], blocks[1:], rtol=1e-6)


def test_statistics_have_the_same_bits_whatever_else_is_there() -> None:
    partitions = make_partitions(3, "squared", features=F)
    layout = Layout(F, 2)
    alone = statistics(partitions[1], layout, 0)
    fortran = Partition("p1", partitions[1].task, np.asfortranarray(partitions[1].X), partitions[1].y)
    np.testing.assert_array_equal(alone, statistics(fortran, layout, 0))


def test_squares_must_be_finite() -> None:
    huge = Partition("p", "t", np.full((2, 1), 1e200) * np.array([[1.0], [-1.0]]), np.ones(2))
    with pytest.raises(DataError, match=r"partition 'p'.*finite"):
        statistics(huge, Layout(1), 0)


def test_layouts_must_make_sense() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Layout(0)
    with pytest.raises(UsageError, match="at least 1"):
        Layout(3, 0)
