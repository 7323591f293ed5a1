from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asyncdmtl.data.loading import recipe_defaults
from asyncdmtl.data.recipes import SOURCES, list_recipes, load
from asyncdmtl.errors import DataError
from asyncdmtl.learning.baseline import single_task
from asyncdmtl.learning.metrics import METRICS, score
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train

SMALL = "synthetic:tasks=3,rows=7,features=11,parts=3,test_rows=5"


def test_recipes_are_listed_with_what_they_are() -> None:
    recipes = list_recipes()
    assert set(recipes) == set(SOURCES)
    assert all(text and "\n" not in text for text in recipes.values())


@pytest.mark.parametrize("spec", ["digits", "digit-pairs", SMALL, "synthetic"])
def test_partitions_are_numbered_task_after_task(spec: str) -> None:
    dataset = load(spec, seed=1)
    tasks = list(dict.fromkeys(p.task for p in dataset.partitions))
    parts = len(dataset.partitions) // len(tasks)
    assert dataset.name == spec
    assert [p.id for p in dataset.partitions] == [f"p{n}" for n in range(len(tasks) * parts)]
    assert dataset.ids == tuple(p.id for p in dataset.partitions)
    assert [p.task for p in dataset.partitions] == [task for task in tasks for _ in range(parts)]
    assert list(dataset.test) == tasks
    for X, y in dataset.test.values():
        assert len(X) == len(y) > 0
        assert X.shape[1] == dataset.partitions[0].features


@pytest.mark.parametrize("spec", ["digits", "digit-pairs", SMALL])
def test_some_partitions_are_made_as_all_are(spec: str) -> None:
    everything = {p.id: p.digest() for p in load(spec, seed=1).partitions}
    some = load(spec, seed=1, only={"p4", "p1"}, test=False)
    assert [p.id for p in some.partitions] == ["p1", "p4"]
    assert all(p.digest() == everything[p.id] for p in some.partitions)
    assert some.test == {}
    assert some.ids == tuple(everything)
    assert load(spec, seed=1, only=(), test=False).partitions == ()
    assert len(set(everything.values())) == len(everything)
    other_seed = {p.digest() for p in load(spec, seed=2).partitions}
    assert not other_seed & set(everything.values())


def test_synthetic_takes_its_parameters() -> None:
    dataset = load(SMALL, seed=0)
    assert (dataset.loss, dataset.intercept, len(dataset.partitions)) == ("squared", False, 9)
    assert [p.rows for p in dataset.partitions[:3]] == [2, 2, 3]
    assert {p.features for p in dataset.partitions} == {11}
    assert dataset.test["task 2"][0].shape == (5, 11)


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
    # Ten rows of the data set have a twin; but no row is dealt out twice.
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


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mnist", "data must be one of digit-pairs, digits, synthetic or a recipe FILE.toml, got 'mnist'"),
        ("", "data must be one of"),
        ("../digits", "data must be one of"),
        ("digits:colour=1", "data digits has the parameters rows, parts; unknown, got 'colour'"),
        ("digits:rows=few", "data digits: rows must be a whole number, got 'few'"),
        ("digits:rows=2.5", "data digits: rows must be a whole number, got '2.5'"),
        ("digits:rows", "must be NAME:key=value,key=value with each key once, got 'rows'"),
        ("digits:rows=4,rows=5", "each key once"),
        ("digits:rows=81", "data digits: rows must be at most 80"),
        ("digit-pairs:rows=61", "data digit-pairs: rows must be at most 60"),
        ("digits:parts=0", "data digits: parts must be at least 1, got 0"),
        ("digits:rows=4,parts=5", "data digits: parts must not exceed the rows of a task"),
        ("synthetic:noise=loud", "data synthetic: noise must be a number, got 'loud'"),
        ("synthetic:noise=nan", "noise must be at least 0, got nan"),
        ("synthetic:features=0", "features must be at least 1, got 0"),
        ("nowhere.toml", "data recipe nowhere.toml must be readable"),
        ("nowhere.toml:rows=4", "data recipe nowhere.toml must be readable"),
    ],
)
def test_specifications_that_make_no_sense(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(spec, seed=0)
    assert message in str(caught.value)


def test_unknown_partitions_and_seeds_are_refused() -> None:
    with pytest.raises(DataError, match=r"p0 to p19; unknown, got \['p20'\]"):
        load("digits", seed=0, only=["p1", "p20"])
    with pytest.raises(DataError, match="seed must be at least 0"):
        load("digits", seed=-1)


OWN = """
source = "synthetic"
[parameters]
tasks = 2
noise = 1
[suggested]
coupling = "l21"
rounds = 7
strength = 0.25
"""


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "o:wn.toml"
    path.write_text(OWN)
    dataset = load(f"{path}:rows=6,features=3", seed=0)
    assert dataset.suggested == {"coupling": "l21", "rounds": 7, "strength": 0.25}
    assert [p.X.shape for p in dataset.partitions] == [(3, 3)] * 4
    assert len(load(str(path), seed=0, test=False).partitions) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"synthetic"', '"mnist"', "source must be one of digits, digit-pairs, synthetic"),
        ('source = "synthetic"', "", "source must be one of"),
        ('source = "synthetic"', "source = 3", "may have source (str)"),
        ("[parameters]", "[parameter]", "may have source (str)"),
        ("tasks = 2", "tasks = 2.0", "tasks must be a whole number"),
        ("tasks = 2", "tasks = true", "tasks must be a whole number"),
        ("tasks = 2", "tsaks = 2", "unknown, got 'tsaks'"),
        ("rounds = 7", "", "suggested needs a coupling"),
        ("rounds = 7", 'rounds = "many"', "suggested needs a coupling"),
        ("tasks = 2", "tasks =", "must be TOML"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(DataError) as caught:
        load(str(path), seed=0)
    assert message in str(caught.value)
    assert "own.toml" in str(caught.value)
