from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from asyncdmtl.data import sources
from asyncdmtl.data.loading import recipe_defaults
from asyncdmtl.data.recipes import load
from asyncdmtl.learning.baseline import single_task
from asyncdmtl.learning.metrics import METRICS, score
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train


def test_synthetic_models_have_the_rank_and_noise_asked_for() -> None:
    spec = "synthetic:tasks=6,rows=60,features=20,rank=3,test_rows=1,noise="
    exact = load(spec + "0", seed=4)
    noisy = load(spec + "0.5", seed=4)
    W, signal, noise = [], [], []
    for t in range(6):
        own = exact.partitions[2 * t : 2 * t + 2]
        X, y = np.concatenate([p.X for p in own]), np.concatenate([p.y for p in own])
        w, *_ = np.linalg.lstsq(X, y, rcond=None)
        assert X @ w == pytest.approx(y, abs=1e-5)
        W.append(w)
        signal.append(y)
        noise.append(np.concatenate([p.y for p in noisy.partitions[2 * t : 2 * t + 2]]) - y)
    assert np.linalg.matrix_rank(np.array(W), tol=1e-4) == 3
    assert np.std(signal) == pytest.approx(1.0, rel=0.5)
    assert np.std(noise) == pytest.approx(0.5, rel=0.15)


def test_synthetic_makes_vectors_of_any_length_for_one_worker() -> None:
    dataset = load("synthetic:tasks=500,rows=4,features=100000", seed=0, only={"p0", "p999"}, test=False)
    assert len(dataset.ids) == 1000
    assert [p.X.shape for p in dataset.partitions] == [(2, 100_000)] * 2
    smoothness = dataset.partitions[0].smoothness("squared", intercept=False)
    assert 0.5 * 100_000 / 2 < smoothness < 2 * 100_000 / 2


@pytest.mark.parametrize("spec", ["digits", "digits:rows=9,parts=3", "digit-pairs"])
def test_digit_rows_are_disjoint_balanced_and_not_tested_on(spec: str) -> None:
    dataset = load(spec, seed=0)
    trained = [row.tobytes() for p in dataset.partitions for row in p.X]
    # Ten rows of the data set occur twice, but no row is used twice.
    assert len(set(trained)) == len(trained)
    for p in dataset.partitions:
        assert abs(p.y.sum() - p.rows / 2) <= 1
        assert 0 <= p.X.min() < p.X.max() == 1.0
    for X, y in dataset.test.values():
        assert not {row.tobytes() for row in X} & set(trained)
        assert 0 < y.sum() < len(y)
    tested = {row.tobytes() for X, _ in dataset.test.values() for row in X}
    if spec == "digits":
        assert len(tested) == 1797 - 400


def test_digits_of_a_task_are_the_digit_and_the_rest() -> None:
    from sklearn.datasets import load_digits

    labels = {(row / 16).tobytes(): digit for row, digit in zip(*load_digits(return_X_y=True), strict=True)}
    for p in load("digits", seed=0).partitions:
        assert all(
            (labels[row.tobytes()] == int(p.task.split()[1])) == y for row, y in zip(p.X, p.y, strict=True)
        )
    for p in load("digit-pairs", seed=0).partitions:
        one, other = map(int, p.task.split(" or "))
        assert all(labels[row.tobytes()] == (one if y else other) for row, y in zip(p.X, p.y, strict=True))


@pytest.mark.parametrize(
    "spec", ["digits", "digit-pairs", "synthetic", "synthetic:noise=0.1", "synthetic:features=20"]
)
def test_suggested_coupling_beats_single_tasks(spec: str) -> None:
    gains = []
    for seed in (11, 12, 13):
        dataset = load(spec, seed=seed)
        settings = Settings(**recipe_defaults(dataset), seed=seed)
        assert settings.rounds <= 150
        alone = single_task(dataset.partitions, dataset.loss, intercept=dataset.intercept)
        coupled, single = (
            score(models, dataset.test, dataset.metric).mean
            for models in (train(dataset.partitions, settings).models, alone)
        )
        gains.append(coupled - single if METRICS[dataset.metric].higher_is_better else single - coupled)
    assert min(gains) > 0
    assert np.mean(gains) > (0.002 if spec.startswith("digit") else 0.04)


@pytest.mark.parametrize("found", [True, False], ids=["from the file", "from scikit-learn"])
def test_digits_are_those_of_scikit_learn(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not found:
        monkeypatch.setattr(sources, "find_spec", lambda name: None)
    sources._digits.cache_clear()
    pixels, digits = sources._digits()
    sources._digits.cache_clear()
    theirs = load_digits(return_X_y=True)
    assert (pixels * 16.0).tobytes() == theirs[0].tobytes()
    assert digits.tobytes() == theirs[1].tobytes()
