"""The mathematics of a round without a wire: shared by workers, the server and the one-process twin.

A round of proximal gradient descent on `Σ_t (1/n_t)·loss_t(w_t) + λ R(W)` has three parts: the local updates
`v_n` of the partitions (`LocalUpdates`), their aggregates `z_t = ψ(v_n : n ∈ S_t)` (`Problem.aggregate`),
and a step of all models (`ProximalStep`). Vectors are kept and exchanged in the run's dtype. Everything in
between is computed in float64 and rounded once, so that every worker that takes the step gets the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats, Vectors
from asyncdmtl.learning.candidate_trainer import CandidateTrainer
from asyncdmtl.learning.newton_trainer import NewtonTrainer
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.statistics_trainer import StatisticsTrainer
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.trainer import Trainer


class Trained(NamedTuple):
    """The result of `train`.

    Attributes
    ----------
    models : TaskModels
    objectives : (rounds,) float64 array
        The objective at the models at which each round's updates were computed.
    converged : bool
        Whether training ended with a solution, or by `tolerance`, rather than by the number of rounds.
    outcome : Outcome or None
    """

    models: TaskModels
    objectives: Floats
    converged: bool
    outcome: Outcome | None = None


def make_trainer(problem: Problem, partitions: Mapping[int, Partition]) -> Trainer:
    """The trainer for a problem's kind of update."""
    by_steps = dict.fromkeys(("newton", "quasi-newton", "model"), NewtonTrainer)
    if problem.update == "newton" and problem.settings.chooses:
        return CandidateTrainer(problem, partitions)
    kinds: dict[str, type[Trainer]] = {"statistics": StatisticsTrainer, **by_steps}
    return kinds.get(problem.update, Trainer)(problem, partitions)


def train(
    partitions: Sequence[Partition],
    settings: Settings,
    *,
    start: TaskModels | None = None,
    on_round: Callable[[int, Trainer], None] | None = None,
) -> Trained:
    """Train in one process, the twin of a distributed run: its models have the same bits on this machine.

    Parameters
    ----------
    partitions : sequence of Partition
        All partitions, in the order of their index `n`.
    settings : Settings
    start : TaskModels, optional
        Models of all tasks to start from, in place of 0.
    on_round : callable, optional
        Called with the round and the trainer after each step.

    Raises
    ------
    DataError
        The partitions do not fit each other or the loss, or the models outgrow the dtype.
    """
    with single_threaded():
        problem = Problem(settings, [p.info(settings) for p in partitions])
        trainer = make_trainer(problem, dict(enumerate(partitions)))
        trainer.alone = True
        if start is not None:
            trainer.place(range(len(problem.tasks)), _matrix(start, problem))
        packed = np.empty((len(partitions), problem.wire.length), problem.wire.dtype)
        objectives: list[float] = []
        converged = False
        while len(objectives) < problem.rounds and not converged:
            objectives.append(trainer.objective(trainer.packed_updates(packed)))
            updates = np.array([trainer.unpacked(n, travelled) for n, travelled in enumerate(packed)])
            converged = problem.exact or problem.converged(objectives[-1], trainer.residual)
            trainer.step(
                [problem.aggregate(t, updates[list(S)]) for t, S in enumerate(problem.partitions_of)]
            )
            if on_round is not None:
                on_round(len(objectives) - 1, trainer)
    return Trained(trainer.models(), np.array(objectives), converged, trainer.outcome)


def _matrix(models: TaskModels, problem: Problem) -> Vectors:
    """Models as the rows (T, d) of a trainer."""
    rows = [models.tasks.index(task) for task in problem.tasks]
    matrix = np.column_stack([models.coef_, models.intercept_])[rows]
    return matrix[:, : problem.d]
