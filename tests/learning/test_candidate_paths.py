import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.candidate_paths import CandidatePaths
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Choice


def make_paths() -> CandidatePaths:
    partitions = make_partitions(4, "logistic", features=2)
    settings = make_settings(
        loss="logistic", coupling="auto", strength=None, update="newton", intercept="auto", folds=2, rounds=9
    )
    return CandidatePaths(Problem(settings, [p.info(settings) for p in partitions]))


def begun() -> CandidatePaths:
    paths = make_paths()
    T = len(paths._problem.tasks)
    paths.begin(0, np.arange(2.0 * T).reshape(T, 2))
    paths.begin(1, np.arange(3.0 * T).reshape(T, 3))
    return paths


def test_there_are_no_paths_before_they_begin() -> None:
    paths = make_paths()
    assert paths.known() == []
    paths.begin(1, np.ones((len(paths._problem.tasks), 3)))
    assert paths.known() == []


def test_the_best_coupling_is_tried_with_a_penalised_intercept_too() -> None:
    paths = begun()
    first = paths.known()
    assert {path.choice.intercept for path in first} == {"free"}
    end = first[-1].places.stop
    held = np.ones((end, 2))
    held[first[2].places] = 0.5
    sources = paths.follow(held)
    assert sources is not None
    assert sources[:end].tolist() == list(range(end))
    second = paths.known()[-1]
    assert second.choice == Choice(first[2].choice.coupling, "penalised")
    assert set(sources[end:].tolist()) <= set(range(first[2].places.start, first[2].places.stop))
    assert paths.follow(held) is None
    held[first[2].places], held[first[0].places] = 1.0, 0.5
    assert paths.follow(held) is not None
    assert paths.known()[-1].choice == Choice("nuclear", "penalised")


def test_nothing_is_tried_twice_where_no_penalty_sees_the_intercept() -> None:
    paths = begun()
    first = paths.known()
    held = np.ones((first[-1].places.stop, 2))
    held[next(path.places for path in first if path.choice.coupling == "none")] = 0.5
    sources = paths.follow(held)
    assert sources is not None
    assert len(sources) == len(held)
    assert len(paths.known()) == len(first)


def test_intercepts_are_coupled_only_if_they_are_penalised() -> None:
    paths = begun()
    held = np.ones((paths.known()[-1].places.stop, 2))
    paths.follow(held)
    T = len(paths._problem.tasks)
    fixed = np.full((3, T), np.nan)
    fixed[:, 0] = 2.0
    descents = paths.descents((3, T, 3), fixed)
    assert {descent.coupled for descent in descents[: len(held)]} == {2}
    assert {descent.coupled for descent in descents[len(held) :]} == {3}
    assert descents[0].fixed[0, 0] == 2.0
    assert np.isnan(descents[-1].fixed).all()


def test_a_state_is_restored_and_checked() -> None:
    paths, other = begun(), make_paths()
    paths.follow(np.ones((paths.known()[-1].places.stop, 2)))
    other.restore(paths.state())
    assert [path.choice for path in other.known()] == [path.choice for path in paths.known()]
    for position, number in ((0, -1.0), (0, np.nan), (-1, 99.0), (-1, 0.5)):
        wrong = paths.state()
        wrong[position] = number
        with pytest.raises(UsageError):
            make_paths().restore(wrong)
