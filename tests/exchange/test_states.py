from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.digests import Digest
from asyncdmtl.exchange.states import ExactStates, Majority, OwnState, RoundedStates, sketch
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import make_trainer

A, B = bytes([1]) * 16, bytes([2]) * 16
DIGEST = Digest("run")


def rounded(dtype: str) -> tuple[RoundedStates, Problem]:
    settings = make_settings(dtype=dtype)
    problem = Problem(settings, [part.info(settings) for part in make_partitions(4, "squared")])
    return RoundedStates(problem), problem


def test_more_than_half_are_a_majority() -> None:
    states = ExactStates(rounded("float64")[1], DIGEST)
    assert states.majority({"a": A}) == Majority(A, ())
    assert states.majority({"a": B, "b": A, "c": A}) == Majority(A, ("a",))
    assert states.majority({"a": A, "b": B}) is None
    assert states.majority({"a": A, "b": A}, 4) is None
    assert states.majority({}) is None


def test_a_state_to_which_most_are_near_is_a_majority_if_rounding_has_moved_all_apart() -> None:
    states = rounded("float64")[0]
    apart = [struct.pack("<2d", 1.0 + i * 1e-6, 1.0) for i in range(3)]
    far = struct.pack("<2d", 2.0, 1.0)
    told = dict(zip("abc", apart, strict=True))
    assert states.majority(told) == Majority(apart[0], ("b", "c"))
    assert states.majority({"w": far, **told}) == Majority(apart[0], ("w", "b", "c"))
    # Equal states are believed before those that are only near.
    assert states.majority({**told, "d": apart[1], "e": apart[1]}) == Majority(apart[1], ("a", "c"))
    assert states.majority({"w": far, "a": apart[0]}) is None


def test_exact_states_are_compared_by_their_digest() -> None:
    _, problem = rounded("float64")
    trainer = make_trainer(problem, {})
    states = ExactStates(problem, DIGEST)
    own = OwnState(trainer, DIGEST)
    assert states.check(trainer.state()) == own.check() == own.check()
    assert states.same(A, A)
    assert not states.same(A, B)


@pytest.mark.parametrize("accelerated", [False, True])
def test_the_check_of_a_worker_is_that_of_its_state_after_each_step(accelerated: bool) -> None:
    settings = make_settings(accelerated=accelerated)
    partitions = make_partitions(4, "squared")
    problem = Problem(settings, [part.info(settings) for part in partitions])
    trainer = Trainer(problem, dict(enumerate(partitions)))
    states, own = ExactStates(problem, DIGEST), OwnState(trainer, DIGEST)
    seen = set()
    for step in range(6):
        if step == 3:  # a check of a state that a step later is the one before it may be left out
            step_on(trainer, partitions)
        assert own.check() == states.check(trainer.state())
        assert own.check() == states.check(trainer.state())
        seen.add(own.check())
        step_on(trainer, partitions)
    assert len(seen) == 6
    trainer.W[1, 2] += 1e-3
    assert own.check() == states.check(trainer.state())


def step_on(trainer: Trainer, partitions: list[Partition]) -> None:
    """One step with the updates of all partitions."""
    problem = trainer.problem
    updates = np.empty((len(partitions), problem.d), problem.dtype)
    trainer.local_updates(updates)
    of_tasks = enumerate(problem.partitions_of)
    trainer.step([problem.aggregate(t, updates[list(own)]) for t, own in of_tasks])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_corrupted_number_shows_and_rounding_does_not(dtype: str) -> None:
    states, problem = rounded(dtype)
    rng = np.random.default_rng(0)
    W: Any = rng.normal(size=(len(problem.tasks), problem.d)).astype(problem.dtype)
    near = np.nextafter(W, rng.normal(size=W.shape).astype(problem.dtype))
    assert states.same(sketch(W), sketch(near))
    tolerance = float(np.finfo(problem.dtype).eps) ** 0.5
    grown, lie = (W * problem.dtype.type(1.0 + times * tolerance) for times in (50.0, 5000.0))
    for other, is_near in ((near, True), (grown, True), (lie, False)):
        assert states.near(sketch(W), sketch(other)) == is_near
    assert not states.same(sketch(W), sketch(grown))
    assert not ExactStates(problem, DIGEST).near(A, A)
    for wrong in (0.0, 1.01 * W[1, 3], -W[1, 3], 1e300, math.nan, math.inf):
        other = W.copy()
        with np.errstate(over="ignore"):
            other[1, 3] = wrong
        assert not states.same(sketch(W), sketch(other))


def test_a_sketch_is_that_of_the_models_in_a_state() -> None:
    states, problem = rounded("float64")
    trainer = make_trainer(problem, {})
    trainer.W[:] = np.arange(trainer.W.size).reshape(trainer.W.shape)
    assert states.check(trainer.state()) == sketch(trainer.W)
    assert not states.same(b"", sketch(trainer.W))
    assert not states.same(struct.pack("<2d", math.nan, math.nan), sketch(trainer.W))
