"""Measure the rounds of `--update model` for several numbers of local epochs, under a large and a small λ.

    python tools/bench_epochs.py [--set NAME]... [--results FILE]

A line has the rounds until the objective is within 1e-6 of the minimum, by the one-process twin. λ is a tenth
or a thousandth of that which leaves no coefficients, or, for the squared coupling "mean-regularised", hardly
any differences. The minimum is that of `--update newton` or `statistics`; before a figure counts, it is
compared with that of another solver (`rounds_reference`).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from bench_rounds import EPOCHS, NEAR, Source, partitions_of
from results import Table, results_option, write_results
from rounds_data import TABLES, write_table
from rounds_reference import COUPLINGS, least

from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.selection import critical_strength
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train

# λ as shares of `critical_strength`.
SHARES = 0.1, 0.001

# The most rounds of a training.
ROUNDS = 300

HEAD = (
    "set", "tasks × features", "coupling, λ", *(f"model, {epochs} epochs" for epochs in EPOCHS),
    "two solvers differ by",
)  # fmt: skip


@click.command()
@click.option("--set", "chosen", multiple=True, type=click.Choice(list(TABLES)), help="Default: all.")
@results_option
def main(chosen: Sequence[str], results_file: Path | None) -> None:
    """Print a line for each set, coupling and λ; exit code 1 if two solvers disagree."""
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(chosen or TABLES):
            file = Path(folder) / f"{index}.csv"
            write_table(TABLES[name](), file)
            partitions, loss = partitions_of(Source(name, file, "task", "target"))
            for coupling in COUPLINGS:
                for share in SHARES:
                    made = by_epochs(name, partitions, loss, coupling, share)
                    if made is None:
                        print(
                            name, coupling, share, "has no minimum: its classes can be separated", flush=True
                        )
                        continue
                    row, excess = made
                    wrong += abs(excess) > NEAR
                    print("  ".join(row), flush=True)
                    rows.append(row)
    if wrong:
        sys.exit("two solvers disagree")
    if results_file is not None:
        write_results(results_file, [Table("rounds-epochs", HEAD, tuple(rows))])


def by_epochs(
    name: str, partitions: Sequence[Partition], loss: str, coupling: str, share: float
) -> tuple[tuple[str, ...], float] | None:
    """A line of the table, and the relative difference of the two solvers; None without a minimum."""
    exact = "statistics" if loss == "squared" else "newton"
    settings = Settings(
        loss=loss, coupling=coupling, strength=1.0, rounds=ROUNDS, tolerance=1e-11, dtype="float64",
        update=exact, standardise=True, arithmetic="fast",
    )  # fmt: skip
    settings = replace(settings, strength=share * critical_strength(partitions, settings))
    trained = train(partitions, settings)
    value = float(trained.objectives.min()) if trained.outcome is None else trained.outcome.objective
    problem = Problem(settings, [partition.info(settings) for partition in partitions])
    if value <= problem.separated:
        return None
    assert settings.strength is not None
    excess = value / least(partitions, loss, coupling, settings.strength) - 1.0
    counts = [
        rounds_to(partitions, replace(settings, update="model", epochs=epochs), value) for epochs in EPOCHS
    ]
    row = (
        name, f"{len(problem.tasks)} × {problem.features}", f"{coupling}, {settings.strength:.2g}",
        *(str(count) if count < ROUNDS else f"more than {ROUNDS}" for count in counts), f"{excess:.0e}",
    )  # fmt: skip
    return row, excess


def rounds_to(partitions: Sequence[Partition], settings: Settings, value: float) -> int:
    """The number of rounds until the objective is within `NEAR` of the minimum `value`."""
    objectives = train(partitions, replace(settings, tolerance=NEAR / 100)).objectives
    reached = np.flatnonzero(objectives <= value * (1.0 + NEAR))
    return int(reached[0]) if len(reached) else ROUNDS


if __name__ == "__main__":
    main()
