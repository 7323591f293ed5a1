"""Partitions that are computed together get the same bits as alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.learning import batches
from asyncdmtl.learning.batches import make_batches
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer

SHAPES = [(7, False), (5, False), (7, True), (7, False), (1, False), (7, True), (5, False), (64, False)]


def made(loss: str, features: int) -> list[Partition]:
    rng = np.random.default_rng(3)
    found = []
    for n, (rows, weighted) in enumerate(SHAPES):
        y = rng.standard_normal(rows)
        if LOSSES[loss].classification:
            y = (np.arange(rows) % 2).astype(float)
        weights = rng.uniform(0.5, 2.0, rows) if weighted else None
        found.append(Partition(f"p{n}", f"t{n % 3}", rng.standard_normal((rows, features)), y, weights))
    return found


def updates(problem: Problem, stored: dict[int, Partition], Y: Any) -> tuple[Any, Any]:
    trainer = Trainer(problem, stored)
    trainer.place(range(len(Y)), Y)
    out = np.empty((len(stored), problem.d), problem.dtype)
    losses = trainer.local_updates(out)
    assert losses.tobytes() == trainer.losses().tobytes()
    return losses, out


def test_partitions_of_one_shape_lie_together() -> None:
    found = make_batches(made("squared", 3), [0, 1, 2, 0, 1, 2, 0, 1])
    assert [batch.places for batch in found] == [[0, 3], [1, 6], [2, 5], [4], [7]]
    assert [batch.tasks for batch in found] == [[0, 0], [1, 0], [2, 2], [1], [1]]
    assert [batch.X.shape for batch in found] == [(2, 7, 3), (2, 5, 3), (2, 7, 3), (1, 1, 3), (1, 64, 3)]


def test_partitions_of_nearly_equal_shape_lie_together() -> None:
    rng = np.random.default_rng(5)
    sizes = [33, 36, 35, 37, 16, 17, 18]
    partitions = [
        Partition(f"p{n}", "t", rng.normal(size=(r, 3)), rng.normal(size=r)) for n, r in enumerate(sizes)
    ]
    found = make_batches(partitions, [0] * len(sizes))
    assert [[sizes[i] for i in batch.places] for batch in found] == [[33, 36, 35], [37], [16], [17, 18]]
    values = rng.normal(size=(3, 36))
    values[0, 33:] = np.inf
    assert found[0].means(values)[0] == pytest.approx(values[0, :33].mean())
    assert found[0].shares(values)[0, 33:].tolist() == [0.0] * 3
    problem = Problem(make_settings(), [partition.info(make_settings()) for partition in partitions])
    Y = rng.normal(size=(1, problem.d)).astype(problem.dtype)
    together, out = updates(problem, dict(enumerate(partitions)), Y)
    for n, partition in enumerate(partitions):
        alone, update = updates(problem, {n: partition}, Y)
        assert together[n] == alone[0]
        assert out[n].tobytes() == update[0].tobytes()


def test_many_partitions_lie_side_by_side() -> None:
    rng = np.random.default_rng(6)
    partitions = [
        Partition(f"p{n}", f"t{n}", rng.normal(size=(17, 5)), rng.normal(size=17))
        for n in range(batches._MANY)
    ]
    (batch,) = make_batches(partitions, range(len(partitions)))
    assert batch.X.strides[0] == batch.X.itemsize
    assert batch.X_by_column is batch.X
    problem = Problem(make_settings(), [partition.info(make_settings()) for partition in partitions])
    Y = rng.normal(size=(len(partitions), problem.d)).astype(problem.dtype)
    together, out = updates(problem, dict(enumerate(partitions)), Y)
    alone, update = updates(problem, {3: partitions[3]}, Y)
    assert (together[3], out[3].tobytes()) == (alone[0], update[0].tobytes())


def test_large_partitions_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_SMALL", 7 * 3 * 8 - 1)
    partitions = made("squared", 3)
    for batch in make_batches(partitions, [0] * len(partitions)):
        if batch.X.nbytes > 5 * 3 * 8 * 2:
            assert len(batch.places) == 1
            assert np.shares_memory(batch.X, partitions[batch.places[0]].X)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "poisson"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("features", [1, 6, 65, 20_000])
def test_no_update_depends_on_what_else_is_stored(loss: str, dtype: str, features: int) -> None:
    partitions = made(loss, features)
    settings = make_settings(loss=loss, dtype=dtype)
    with single_threaded():
        problem = Problem(settings, [partition.info(settings) for partition in partitions])
        Y = np.random.default_rng(4).standard_normal((len(problem.tasks), problem.d))
        losses, out = updates(problem, dict(enumerate(partitions)), Y)
        for n, partition in enumerate(partitions):
            loss_alone, alone = updates(problem, {n: partition}, Y)
            assert loss_alone.tobytes() == losses[[n]].tobytes()
            assert alone.tobytes() == out[[n]].tobytes()
        some = [1, 3, 5, 6]
        loss_some, out_some = updates(problem, {n: partitions[n] for n in some}, Y)
        assert loss_some.tobytes() == losses[some].tobytes()
        assert out_some.tobytes() == out[some].tobytes()
