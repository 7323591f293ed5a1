"""The training that asyncdmtl makes, around MPI's Allgather: each process has one partition and all models.

Losses and updates are gathered; every process then takes the step by asyncdmtl's own code, as its workers do.
Unlike the other scripts, it needs asyncdmtl in its environment. The environment's variable OUT names the file
to which the first process writes the SHA-256 of the models.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import click
import numpy as np
from mpi4py import MPI
from systems.common import ALL_ROUNDS, NUMBERS, WORKERS, Server, training_like

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.cli.training_options import make_settings, training_options
from asyncdmtl.data import recipes
from asyncdmtl.data.loading import recipe_defaults
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import make_trainer

everyone = MPI.COMM_WORLD
rank = everyone.Get_rank()


def main() -> None:
    """Train."""
    spec, options = training_like(WORKERS, NUMBERS, len(ALL_ROUNDS))
    data = recipes.load(spec, seed=0, only=[f"p{rank}"], test=False)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    given = click.command()(training_options(lambda **given: given)).main(words, standalone_mode=False)
    settings = make_settings(recipe_defaults(data), {"seed": 0, "test_fraction": 0.0, **given})
    infos = everyone.allgather(data.partitions[0].info(settings))
    problem = Problem(settings, infos)
    trainer = make_trainer(problem, {rank: data.partitions[0]})
    trainer.warm_up()
    coordinator = Server()
    own = np.empty((1, problem.wire.length), problem.wire.dtype)
    updates = np.empty((WORKERS, problem.wire.length), problem.wire.dtype)
    losses = np.empty(WORKERS)
    for round_ in ALL_ROUNDS:
        everyone.Allgather(trainer.packed_updates(own), losses)
        everyone.Allgather(own, updates)
        problem.converged(trainer.objective(losses), trainer.residual)
        trainer.step(list(updates))
        everyone.Barrier()
        if rank == 0:
            coordinator.round(round_)
        everyone.Barrier()
    if rank == 0:
        digest = hashlib.sha256(trainer.models().coef_.tobytes()).hexdigest()
        Path(os.environ["OUT"]).write_text(digest, encoding="utf-8")


with single_threaded():
    main()
