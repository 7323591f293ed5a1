"""Measure rounds, bytes and seconds to the optimum for each kind of update, on sockets.

    python tools/bench_rounds.py [--school FILE] [--set NAME]... [--quick] [--results FILE]

Every set is a table with a task for each group of rows. `asyncdmtl run` chooses the coupling and λ and trains
with five worker processes. Then each coupling, with the λ that a cross-validation gives it, is trained by
each kind of update, and the rounds are counted until the objective is within 1e-6 of the minimum; with
updates "model" for several numbers of local epochs. Before a figure counts, the minimum is compared with that
of another solver (`rounds_reference`). Bytes are those of the ledger. Seconds are those of a whole command,
and of the processors for all its processes. The school data are measured by the command only, as the other
solver takes minutes for them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from results import Table, write_results
from rounds_data import TABLES, write_table
from rounds_reference import COUPLINGS, least

from asyncdmtl.data import loading
from asyncdmtl.launch.threads import run_in_threads
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.learning.updates import ROUND_COST, Forecast, cheapest, forecasts
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.records import RunOptions

WORKERS, COPIES = 5, 3

# The relative distance from the minimum to which rounds are counted, and by which two solvers may differ.
NEAR = 1e-6

# The most rounds of a training.
ROUNDS = 5000

# The numbers of local epochs that are measured.
EPOCHS = 5, 20, 200


class Source(NamedTuple):
    """A table: its name in the results, its file, and the columns with tasks and targets."""

    name: str
    file: Path
    task: str
    target: str


@click.command()
@click.option("--school", type=click.Path(path_type=Path, exists=True), help="The school data, a CSV file.")
@click.option("--set", "chosen", multiple=True, type=click.Choice(list(TABLES)), help="Default: all.")
@click.option("--quick", is_flag=True, help="Only whole commands, not each coupling and update.")
@click.option("--results", "results_file", type=click.Path(path_type=Path), help="For docs_benchmarks.py.")
def main(school: Path | None, chosen: Sequence[str], quick: bool, results_file: Path | None) -> None:
    """Print a line for each run; exit code 1 if a result is wrong."""
    wrong = 0
    commands: list[tuple[str, ...]] = []
    updates: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        sources = [] if school is None else [Source("school", school, "school", "score")]
        for index, name in enumerate(chosen or TABLES):
            file = Path(folder) / f"{index}.csv"
            write_table(TABLES[name](), file)
            sources.append(Source(name, file, "task", "target"))
        for source in sources:
            partitions, loss = partitions_of(source)
            row, excess = whole_command(source, partitions)
            wrong += abs(excess) > NEAR
            print("  ".join(row), flush=True)
            commands.append(row)
            for coupling in () if quick or source.name == "school" else COUPLINGS:
                made = by_update(source.name, partitions, loss, coupling)
                if made is None:
                    print(source.name, coupling, "has no minimum: its classes can be separated", flush=True)
                    continue
                row, excess = made
                wrong += abs(excess) > NEAR
                print("  ".join(row), flush=True)
                updates.append(row)
    tables = [Table("rounds-commands", COMMAND_HEAD, tuple(commands))]
    if updates:
        tables.append(Table("rounds-updates", UPDATE_HEAD, tuple(updates)))
    if wrong:
        sys.exit("two solvers disagree")
    if results_file is not None:
        write_results(results_file, tables)


COMMAND_HEAD = (
    "set", "tasks × features", "loss", "chosen", "update", "rounds", "MB", "seconds", "of processors",
    "above the other solver's minimum",
)  # fmt: skip

UPDATE_HEAD = (
    "set", "coupling, λ", "gradient", "quasi-newton", "gradient ÷ quasi-newton", "newton",
    "MB: gradient, quasi-newton, newton, statistics", *(f"model, {epochs} epochs" for epochs in EPOCHS),
    "predicted cheapest", "two solvers differ by",
)  # fmt: skip


def partitions_of(source: Source) -> tuple[list[Partition], str]:
    """The training rows of a table, as `asyncdmtl run` cuts and encodes them, and their loss."""
    given = {"data": str(source.file), "task": source.task, "target": source.target}
    blank = dict.fromkeys(("features", "weight", "omit"))
    loaded = loading.load({**blank, **given, "seed": 0, "parts": 2, "test_fraction": 0.2})
    loss = loaded.defaults["loss"]
    settings = Settings(loss=loss, coupling="none", strength=0.0, rounds=1, standardise=True)
    return list(loaded.prepared(settings).partitions), loss


def whole_command(source: Source, partitions: Sequence[Partition]) -> tuple[tuple[str, ...], float]:
    """A line of the first table, and the excess of the objective over the other solver's minimum."""
    command = [
        sys.executable, "-m", "asyncdmtl", "run", "--data", str(source.file), "--task", source.task,
        "--target", source.target, "--format", "json",
    ]  # fmt: skip
    before, began = _processor_seconds(), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, processors = time.perf_counter() - began, _processor_seconds() - before
    report = json.loads(done.stdout.splitlines()[-1])["report"]
    settings, training = report["settings"], report["training"]
    intercept = settings["intercept"]
    other = least(partitions, settings["loss"], settings["coupling"], settings["strength"], intercept)
    excess = training["objective"] / other - 1.0
    moved = sum(entry["payload_bytes"] + entry["framing_bytes"] for entry in report["ledger"])
    row = (
        source.name, f"{report['tasks']} × {report['vector']['numbers'] - 1}", settings["loss"],
        f"{settings['coupling']}, λ = {settings['strength']:.3g}, {intercept} intercept", training["update"],
        str(training["rounds"]), f"{moved / 1e6:.2f}", f"{seconds:.1f}", f"{processors:.1f}",
        f"{excess:.0e}",
    )  # fmt: skip
    return row, excess


def by_update(
    name: str, partitions: Sequence[Partition], loss: str, coupling: str
) -> tuple[tuple[str, ...], float] | None:
    """A line of the second table, and the relative difference of the two solvers; None without a minimum."""
    exact = "statistics" if loss == "squared" else "newton"
    settings = Settings(
        loss=loss, coupling=coupling, strength=None, rounds=100, tolerance=1e-10, dtype="float64",
        update=exact,
    )  # fmt: skip
    chosen = train(partitions, settings).outcome
    assert chosen is not None
    settings = replace(settings, strength=chosen.strength)
    trained = train(partitions, settings)
    value = float(trained.objectives.min()) if trained.outcome is None else trained.outcome.objective
    problem = Problem(settings, [partition.info(settings) for partition in partitions])
    if value <= problem.separated:
        return None
    other = least(partitions, loss, coupling, chosen.strength)
    counts = {
        update: rounds_to(partitions, replace(settings, update=update, rounds=ROUNDS), value)
        for update in ("gradient", "quasi-newton", "newton")
    }
    if exact == "statistics":
        counts["statistics"] = 1
    by_epochs = [
        rounds_to(partitions, replace(settings, update="model", epochs=epochs, rounds=ROUNDS), value)
        for epochs in EPOCHS
    ]
    megabytes = {
        update: rounds * bytes_a_round(partitions, replace(settings, update=update)) / 1e6
        for update, rounds in counts.items()
    }
    costs = ", ".join(f"{megabytes[u]:.2f}" if u in megabytes else "–" for u in UPDATES)
    auto = cheapest(forecast(partitions, settings), len(partitions))
    assert auto is not None
    best = min(megabytes, key=lambda update: megabytes[update] + counts[update] * ROUND_COST / 1e6)
    judged = auto.update if auto.update == best else f"{auto.update}, but {best} was"
    row = (
        name, f"{coupling}, {chosen.strength:.3g}", str(counts["gradient"]), str(counts["quasi-newton"]),
        f"{counts['gradient'] / counts['quasi-newton']:.1f}", str(counts["newton"]), costs,
        *map(str, by_epochs), judged, f"{value / other - 1.0:.0e}",
    )  # fmt: skip
    return row, value / other - 1.0


UPDATES = ("gradient", "quasi-newton", "newton", "statistics")


def forecast(partitions: Sequence[Partition], settings: Settings) -> Sequence[Forecast]:
    """What `--update auto` predicts."""
    rows = min(partition.rows for partition in partitions)
    tasks = len({partition.task for partition in partitions})
    return forecasts(replace(settings, update="auto"), partitions[0].features, rows, tasks)


def rounds_to(partitions: Sequence[Partition], settings: Settings, value: float) -> int:
    """The number of rounds until the objective is within `NEAR` of the minimum `value`, by the twin."""
    for tolerance in (NEAR, NEAR / 100):
        objectives = train(partitions, replace(settings, tolerance=tolerance)).objectives
        reached = np.flatnonzero(objectives <= value * (1.0 + NEAR))
        if len(reached):
            return int(reached[0])
    return ROUNDS


def bytes_a_round(partitions: Sequence[Partition], settings: Settings) -> float:
    """Bytes of a round on sockets, of up to three of them, by the ledger."""
    placement = Placement.cyclic(WORKERS, len(partitions), COPIES)
    stored = {
        worker: [partitions[n] for n in held]
        for worker, held in zip(placement.workers, placement.stored, strict=True)
    }
    short = replace(settings, rounds=3, tolerance=0.0)
    record, _ = run_in_threads(RunOptions(short, "relay", WORKERS), stored)
    return sum(made.up_bytes + made.down_bytes for made in record.rounds) / len(record.rounds)


def _processor_seconds() -> float:
    """Seconds of processors that ended child processes have used, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
