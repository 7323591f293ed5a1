"""The growth of rounding errors from round to round under a linear plan, by which plans are chosen."""

from __future__ import annotations

import numpy as np

from asyncdmtl.arrays import Vectors
from asyncdmtl.learning.problem import Problem
from asyncdmtl.plan.linear.plan import LinearPlan

# Rounds of `rounding_growth`. They take a few milliseconds each for 20 workers.
_GROWTH_ROUNDS = 80

# The random problems of `rounding_growth`: with so many, the growth of a plan varies little with their seed.
_DRAWS = 16


def rounding_growth(plan: LinearPlan, problem: Problem) -> float:
    """The factor by which the models of different workers move apart in a round; at most 1 if they do not.

    Each worker recovers `A·V` with the help of its own updates, which follow from its own models. If these
    differ from other workers' by rounding, so does what it recovers, and some plans enlarge the difference in
    every round. How much depends on how curvatures differ between partitions, and on the coupling, which
    mixes the differences of tasks. The factor is the largest of `_DRAWS` problems: gradient steps with random
    curvatures, of which the largest that partitions declare are the most. In half of the problems, means of
    random groups of tasks, up to signs, replace the models after each step. The factor is found by
    `_GROWTH_ROUNDS` such rounds, without rounding.
    """
    owners, rng = np.array(problem.task_of), np.random.default_rng(0)
    curvatures = rng.random((len(owners), _DRAWS))
    curvatures *= problem.step_lengths[0] * np.array([[info.smoothness] for info in problem.infos])
    projections = _projections(len(problem.tasks), rng)
    # A packet has one number of each problem.
    columns = np.tile(curvatures, plan.subpackets)
    apart = rng.standard_normal((len(plan.placement.workers), len(problem.tasks), columns.shape[1]))
    grown = np.ones(_DRAWS)
    for round_ in range(_GROWTH_ROUNDS):
        updates = [
            columns[list(M)] * models[owners[list(M)]]
            for models, M in zip(apart, plan.placement.stored, strict=True)
        ]
        rows = {k: plan.encode(k, own) for k, own in enumerate(updates)}
        down = plan.broadcast(plan.aggregate(rows))
        steps = [problem.spread(plan.recover(k, down, own)) for k, own in enumerate(updates)]
        moved = (apart - np.stack(steps)).reshape(*apart.shape[:2], plan.subpackets, _DRAWS)
        moved = np.einsum("itu,kusi->ktsi", projections, moved)
        sizes = np.sqrt(np.square(moved).sum(axis=(0, 1, 2)))
        apart = (moved / np.where(sizes > 0.0, sizes, 1.0)).reshape(apart.shape)
        # The first half of the rounds finds the direction that grows most.
        grown *= sizes if round_ >= _GROWTH_ROUNDS // 2 else 1.0
    return float(grown.max() ** (1.0 / (_GROWTH_ROUNDS - _GROWTH_ROUNDS // 2)))


def _projections(tasks: int, rng: np.random.Generator) -> Vectors:
    """Matrices of `_DRAWS` problems, (_DRAWS, tasks, tasks): identities, and means of random groups."""
    made = np.empty((_DRAWS, tasks, tasks))
    for i in range(_DRAWS):
        groups = rng.integers(0, max(1, tasks * i // _DRAWS), tasks) if i % 2 else np.arange(tasks)
        signs = rng.choice([-1.0, 1.0], tasks) if i % 2 else np.ones(tasks)
        together = groups[:, None] == groups
        made[i] = np.outer(signs, signs) * together / together.sum(axis=0)
    return made
