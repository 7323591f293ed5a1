from __future__ import annotations

from pathlib import Path

import pytest

from asyncdmtl.data.recipes import list_recipes, load
from asyncdmtl.data.sources import SOURCES
from asyncdmtl.errors import DataError

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
