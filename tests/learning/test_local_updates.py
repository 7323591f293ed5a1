from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning import local_updates
from asyncdmtl.learning.curvature import SecondOrderWire
from asyncdmtl.learning.iterate import Iterate
from asyncdmtl.learning.local_updates import LocalUpdates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.statistics import StatisticsWire
from asyncdmtl.learning.tasks import Partition


def make_updates(
    partitions: list[Partition], stored: list[int] | None = None, **changes: Any
) -> LocalUpdates:
    """Local updates at random models."""
    settings = make_settings(**{"dtype": "float64"} | changes)
    problem = Problem(settings, [p.info(settings) for p in partitions])
    iterate = Iterate(problem)
    kept = range(len(partitions)) if stored is None else stored
    made = LocalUpdates(problem, {n: partitions[n] for n in kept}, iterate)
    rng = np.random.default_rng(0)
    iterate.place(range(len(problem.tasks)), rng.standard_normal(iterate.W.shape))
    return made


def computed(updates: LocalUpdates) -> tuple[Any, Any]:
    out = np.empty((len(updates.own), updates._problem.d), updates._problem.dtype)
    return updates.compute(out), out


@pytest.mark.parametrize("intercept", ["free", "none"])
@pytest.mark.parametrize("weighted", [True, False])
def test_an_update_is_the_gradient_of_the_weighted_mean_loss(intercept: str, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    partitions = [
        Partition(f"p{n}", f"t{n // 2}", p.X, p.y, rng.uniform(0.5, 2.0, p.rows) if weighted else None)
        for n, p in enumerate(make_partitions(4, "squared"))
    ]
    updates = make_updates(partitions, intercept=intercept)
    losses, out = computed(updates)
    for n, p in enumerate(partitions):
        model = updates._iterate.W[n // 2]
        shares = np.ones(p.rows) if p.weights is None else p.weights
        shares = shares / shares.sum()
        A = p.X if intercept == "none" else np.column_stack([p.X, np.ones(p.rows)])
        errors = A @ model - p.y
        assert losses[n] == pytest.approx(0.5 * shares @ errors**2)
        assert out[n] == pytest.approx(A.T @ (shares * errors))
    assert (losses == updates.losses()).all()


def test_many_features_are_taken_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = make_partitions(3, "logistic", features=11)
    losses, out = computed(make_updates(partitions, loss="logistic"))
    monkeypatch.setattr(local_updates, "_BLOCK_COLUMNS", 4)
    by_blocks, blocked = computed(make_updates(partitions, loss="logistic"))
    assert blocked == pytest.approx(out, rel=1e-12)
    assert by_blocks == pytest.approx(losses, rel=1e-12)


def test_an_update_does_not_depend_on_what_else_is_stored() -> None:
    partitions = make_partitions(5, "squared")
    _, every = computed(make_updates(partitions))
    some = make_updates(partitions, stored=[4, 1])
    assert some.own == (1, 4)
    assert computed(some)[1].tobytes() == every[[1, 4]].tobytes()
    none = make_updates(partitions, stored=[])
    assert [len(part) for part in computed(none)] == [0, 0]


def test_tasks_of_one_class_have_neither_loss_nor_gradient() -> None:
    rng = np.random.default_rng(2)
    partitions = [
        Partition("p0", "a", rng.standard_normal((4, 2)), np.ones(4)),
        Partition("p1", "b", rng.standard_normal((4, 2)), np.array([0.0, 1.0, 1.0, 0.0])),
    ]
    updates = make_updates(partitions, loss="logistic")
    losses, out = computed(updates)
    assert (losses[0], losses[1] > 0.0) == (0.0, True)
    assert (out[0] == 0.0).all()
    assert out[1].all()
    assert updates.losses()[0] == 0.0
    several = make_updates(partitions, loss="logistic", update="model", standardise=True)
    packed = np.empty((2, several._problem.wire.length))
    several.pack(packed)
    assert packed[0, 0] == 0.0
    assert (packed_models(several)[0] == several._iterate.W[0]).all()


def test_sizes_of_columns_count_the_weights_of_rows() -> None:
    (plain,) = make_partitions(1, "squared", features=3)
    weights = np.arange(1.0, plain.rows + 1.0)
    partition = replace(plain, weights=weights)
    told = packed_models(make_updates([partition], update="quasi-newton", dtype="float64"))[0]
    squares = np.average(np.square(partition.X), axis=0, weights=weights)
    np.testing.assert_allclose(told, [*squares, 1.0], rtol=1e-12)


def packed_models(updates: LocalUpdates) -> Any:
    packed = np.empty((len(updates.own), updates._problem.wire.length))
    updates.pack(packed)
    return packed[:, 1 : 1 + updates._problem.d]


def test_the_first_updates_are_what_epochs_of_gradient_descent_make_of_the_tasks_model() -> None:
    (partition,) = make_partitions(1, "squared", features=3)
    updates = make_updates([partition], epochs=3, update="model", intercept="none", dtype="float64")
    start = updates._iterate.W[0].astype(np.float64)
    model, L = start.copy(), updates._problem.infos[0].smoothness + 1.0
    for _ in range(3):
        model -= partition.X.T @ (partition.X @ model - partition.y) / partition.rows / L
    assert packed_models(updates)[0] == pytest.approx(model)
    updates._iterate.steps = 1
    gradient = partition.X.T @ (partition.X @ start - partition.y) / partition.rows
    assert packed_models(updates)[0] == pytest.approx(gradient)


def test_learners_that_draw_at_random_repeat_by_partition_and_step() -> None:
    partitions = make_partitions(2, "squared")
    changes: dict[str, Any] = {
        "update": "model", "learner": "SGDRegressor", "epochs": 2, "seed": 5, "standardise": True,
    }  # fmt: skip
    one, other = make_updates(partitions, **changes), make_updates(partitions, stored=[1], **changes)
    assert packed_models(one)[1].tobytes() == packed_models(other)[0].tobytes()


def test_a_learner_that_fails_names_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = make_updates(make_partitions(1, "squared"), update="model", standardise=True)

    class Failing:
        def fit(self, *_: object, **__: object) -> None:
            raise DataError("X", "must have more rows", 1)

    monkeypatch.setattr(updates, "_learner", Failing())
    with pytest.raises(DataError, match="partition 'p0': X must have more rows, got 1"):
        packed_models(updates)


def test_updates_travel_as_they_are_or_compressed() -> None:
    partitions = make_partitions(3, "squared")
    plain = make_updates(partitions)
    packed = np.empty((3, plain._problem.d))
    losses, expected = computed(make_updates(partitions))
    assert (plain.pack(packed) == losses).all()
    assert packed.tobytes() == expected.tobytes()
    halved = make_updates(partitions, compression="float16")
    wire = halved._problem.wire
    coded = np.empty((3, wire.length), np.uint8)
    assert (halved.pack(coded) == losses).all()
    assert halved.differences is not None
    unpacked = [halved.differences.add(n, row) for n, row in enumerate(coded)]
    assert np.array(unpacked) == pytest.approx(expected, rel=1e-2, abs=1e-2)


def test_partitions_must_be_those_declared() -> None:
    partitions = make_partitions(3, "squared")
    settings = make_settings()
    problem = Problem(settings, [p.info(settings) for p in partitions])
    p = partitions[0]
    shorter = Partition(p.id, p.task, p.X[1:], p.y[1:])
    for stored, message in (
        ({1: p}, "partition must be the one declared as number 1, got 'p0'"),
        ({7: p}, "partition must be the one declared as number 7, got 'p0'"),
        ({-3: p}, "partition must be the one declared as number -3, got 'p0'"),
        ({0: shorter}, r"partition 'p0' must have task, rows, weight and features as declared .*\('t0', 4, "),
    ):
        with pytest.raises(DataError, match=message):
            LocalUpdates(problem, stored, Iterate(problem))


def test_targets_must_suit_the_loss() -> None:
    real = make_partitions(1, "squared")
    settings = make_settings(loss="logistic")
    problem = Problem(settings, [p.info(settings) for p in make_partitions(1, "logistic")])
    with pytest.raises(DataError, match="partition 'p0'"):
        LocalUpdates(problem, {0: real[0]}, Iterate(problem))


@pytest.mark.parametrize("out", [np.empty((1, 9)), np.empty((2, 10)), np.empty((1, 10), np.float32)])
def test_out_must_have_the_shape_and_dtype_of_the_updates(out: Any) -> None:
    updates = make_updates(make_partitions(1, "squared"))
    with pytest.raises(UsageError, match=r"out must have shape and dtype \(\(1, 10\), dtype\('float64'\)\)"):
        updates.compute(out)


def test_statistics_travel_whatever_the_models_are() -> None:
    partitions = make_partitions(3, "squared", features=2)
    updates = make_updates(partitions, update="statistics")
    wire = updates._problem.wire
    assert isinstance(wire, StatisticsWire)
    packed = np.empty((3, wire.length), np.uint8)
    assert (updates.pack(packed) == updates.losses()).all()
    for row, p in zip(packed, partitions, strict=True):
        block = wire.layout.unpack(row)[0]
        columns = np.column_stack([p.X, p.y])
        assert block[: 1 + 3] == pytest.approx([p.rows, *columns.mean(axis=0)])


@pytest.mark.parametrize("update", ["newton", "quasi-newton"])
def test_losses_gradients_and_curvatures_travel_together(update: str) -> None:
    partitions = make_partitions(3, "squared", features=2)
    updates = make_updates(partitions, update=update, standardise=True)
    wire = updates._problem.wire
    assert isinstance(wire, SecondOrderWire)
    packed = np.empty((3, wire.length))
    losses = updates.pack(packed)
    told, gradients, H = wire.split(packed)
    assert told == pytest.approx(losses)
    expected_losses, expected = computed(make_updates(partitions))
    assert losses == pytest.approx(expected_losses)
    assert gradients == pytest.approx(expected)
    for n, p in enumerate(partitions):
        A = np.column_stack([p.X, np.ones(p.rows)])
        assert H[n] == pytest.approx(A.T @ A / p.rows if update == "newton" else np.zeros((3, 3)))


def test_tasks_of_one_class_tell_nothing_of_second_order() -> None:
    rng = np.random.default_rng(2)
    partitions = [Partition("p0", "a", rng.standard_normal((4, 2)), np.ones(4))]
    updates = make_updates(partitions, loss="logistic", update="newton")
    packed = np.empty((1, updates._problem.wire.length))
    assert updates.pack(packed).tolist() == [0.0]
    assert not packed.any()
