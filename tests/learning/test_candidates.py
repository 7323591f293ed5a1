import numpy as np

from asyncdmtl.learning.batches import make_batches
from asyncdmtl.learning.candidates import CandidatesWire, describe_candidates
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.tasks import Partition

FEATURES, FOLDS, PATHS, ROWS = 3, 2, 2, 7


def labelled(name: str, rng: np.random.Generator) -> Partition:
    X, y = rng.normal(size=(ROWS, FEATURES)), rng.integers(0, 2, ROWS).astype(np.float64)
    return Partition(name, "t", X, y, rng.uniform(1, 2, ROWS))


def test_what_is_told_are_means_over_the_rows_in_and_out_of_each_fold() -> None:
    rng = np.random.default_rng(0)
    parts = [labelled("p0", rng), labelled("p1", rng)]
    wire, dealt = CandidatesWire(FEATURES + 1, PATHS, FOLDS), rng.integers(0, FOLDS, size=(2, ROWS))
    models = rng.normal(size=(PATHS, FOLDS + 1, 1, FEATURES + 1))
    (batch,) = make_batches(parts, [0, 0])
    folds = np.full(batch.y.shape, -2)
    folds[:, :ROWS] = dealt
    out = np.empty((2, wire.length))
    none, all_ = np.zeros((PATHS, FOLDS + 1), np.bool_), np.ones((PATHS, FOLDS + 1), np.bool_)
    describe_candidates(batch, folds, wire, "logistic", (models, none, all_, all_), out)
    some = all_.copy()
    some[0, 1] = False
    fewer = np.empty_like(out)
    describe_candidates(batch, folds, wire, "logistic", (models, none, some, some), fewer)
    assert not wire.blocks(fewer)[:, 0, 1].any()
    wire.blocks(fewer)[:, 0, 1] = wire.blocks(out)[:, 0, 1]
    np.testing.assert_array_equal(fewer, out)
    weights = np.array([p.weight for p in parts])
    told = wire.told((weights @ out / weights.sum())[None])

    X = np.concatenate([np.column_stack([p.X, np.ones(ROWS)]) for p in parts])
    y, row_weights = (np.concatenate([getattr(p, name) for p in parts]) for name in ("y", "weights"))
    for k in range(FOLDS + 1):
        kept = dealt.reshape(-1) != k - 1
        np.testing.assert_allclose(told.shares[k, 0], row_weights[kept].sum() / row_weights.sum())
        for p in range(PATHS):
            values, slopes = LOSSES["logistic"].value_and_derivative(X @ models[p, k, 0], y)
            w = row_weights[kept] / row_weights[kept].sum()
            bent = (np.abs(slopes) * (1 - np.abs(slopes)))[kept]
            np.testing.assert_allclose(told.losses[p, k, 0], w @ values[kept])
            np.testing.assert_allclose(told.gradients[p, k, 0], (w * slopes[kept]) @ X[kept])
            H = (X[kept] * (w * bent)[:, None]).T @ X[kept]
            np.testing.assert_allclose(told.second_derivatives(p)[k, 0], H)
            if k:
                held = np.average(values[~kept], weights=row_weights[~kept])
                np.testing.assert_allclose(told.held[p, k, 0], held)


def test_tasks_without_rows_in_a_data_set_tell_nothing() -> None:
    wire = CandidatesWire(2, 1, 2)
    vector = np.ones((1, wire.length))
    vector[:, :2] = 1.0, 0.0
    told = wire.told(vector)
    np.testing.assert_array_equal(told.shares[:, 0], [1.0, 0.0, 1.0])
    assert told.losses[0, 1, 0] == 0.0
    assert told.held[0, 2, 0] == 0.0
