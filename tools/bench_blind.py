"""Measure what a blind server costs: the same rounds with and without `--blind`, side by side.

    python tools/bench_blind.py [--workers 8] [--copies 4] [--numbers 100,1000000] [--runs 3] [--results FILE]

Two tables. *Processor time* of the work of a round: all workers and the server in one process that passes
their bytes by hand, so that other load of the machine does not count; the sides alternate. *Runs*: every run
is `asyncdmtl run`, on open links of this machine, and each figure is the median over the rounds of all runs
of its kind, without the first of each. Before a figure counts, models must be equal bit for bit, and the
bytes of rows and of heads equal. `--runs 0` makes the first table only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from results import Table, results_option, write_results

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.digests import Digest
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.exchange.strategies import strategy_of
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

# Rounds at the beginning that are not counted, as buffers are touched for the first time.
WARM_UP = 2

# Numbers of all vectors of a measurement of processor time: short ones are measured over more rounds, at
# least `LEAST_ROUNDS`.
MEASURED_NUMBERS = 80_000
LEAST_ROUNDS = 8

# Vectors of fewer numbers have this many times as many rounds in a run: the first of them take longer.
SHORT, MORE_ROUNDS = 10_000, 10


@click.command()
@click.option("--workers", default=8, help="Workers, each with as many tasks.")
@click.option("--copies", default=4, help="Workers that store each partition.")
@click.option("--numbers", default="100,1000000", help="Numbers of a vector.")
@click.option("--rounds", default=12, help="Rounds of a run; ten times as many with short vectors.")
@click.option("--runs", default=3, help="Runs of each kind.")
@results_option
def main(workers: int, copies: int, numbers: str, rounds: int, runs: int, results_file: Path | None) -> None:
    """Print a line for each size; exit code 1 if models or bytes differ."""
    sizes = list(map(int, numbers.split(",")))
    rows = [in_one_process(workers, copies, size) for size in sizes]
    head = ("vectors", "open to the server", "blind", "more for a worker", "share")
    tables = [Table("blind-processor", head, tuple(rows))]
    if runs:
        rows = [in_runs(workers, copies, size, rounds, runs) for size in sizes]
        of_runs = (*head[:3], "difference", "share")
        tables.append(Table("blind-runs", of_runs, tuple(rows)))
    if results_file is not None:
        write_results(results_file, tables)


class Round:
    """All sides of a run in one process."""

    def __init__(self, workers: int, copies: int, size: int, *, blind: bool) -> None:
        placement, rng = Placement.cyclic(workers, workers, copies), np.random.default_rng(0)
        partitions = [
            Partition(name, f"t{n}", rng.standard_normal((2, size - 1)), rng.standard_normal(2))
            for n, name in enumerate(placement.partitions)
        ]
        settings = Settings(
            loss="squared", coupling="l21", strength=0.01, rounds=10**6, tolerance=0.0, dtype="float32",
            update="gradient",
        )  # fmt: skip
        problem = Problem(settings, [part.info(settings) for part in partitions])
        plan = make_plan(placement, "relay", tasks=problem.task_of)
        group = GroupKey(bytes(32), "run") if blind else None
        options = SideOptions(digest=Digest("run"), detailed=False, blind=blind, group=group)
        made = strategy_of(plan)
        self.server = made.server_side(plan, problem, options=options)
        if group is not None:
            options = replace(options, digest=group.digest)
        self.workers = [
            made.worker_side(plan, k, Trainer(problem, {n: partitions[n] for n in stored}), options)
            for k, stored in enumerate(placement.stored)
        ]
        self.number = 0

    def seconds(self) -> float:
        """Processor seconds of one round."""
        began, server = time.process_time(), self.server
        for worker in self.workers:
            worker.begin(0, self.number)
        sent = [worker.told(worker.compute()) for worker in self.workers]
        server.agree(server.completed(sent))
        for i in range(len(server.ranges)):
            server.put(i, [part.rows[i] for part in sent])
            for k, worker in enumerate(self.workers):
                worker.receive(i, np.concatenate([np.empty(0, np.uint8), *server.rows(k, i)]))
        for k, worker in enumerate(self.workers):
            worker.take_told(server.told(k))
            worker.apply(server.digest(k))
        self.number += 1
        return time.process_time() - began


def in_one_process(workers: int, copies: int, size: int) -> tuple[str, ...]:
    """The row of processor times for vectors of a size."""
    sides = {blind: Round(workers, copies, size, blind=blind) for blind in (False, True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for index in range(WARM_UP + max(LEAST_ROUNDS, MEASURED_NUMBERS // (workers * size))):
        for blind in (False, True) if index % 2 else (True, False):
            seconds[blind].append(sides[blind].seconds())
    models = [[worker.models().coef_.tobytes() for worker in side.workers] for side in sides.values()]
    if models[0] != models[1]:
        sys.exit("the models of a blind run differ")
    plain, masked = (median(seconds[blind][WARM_UP:]) for blind in (False, True))
    row = (
        f"{workers} × {size:,} float32, {copies} copies", f"{1e3 * plain:.1f} ms", f"{1e3 * masked:.1f} ms",
        f"{1e3 * (masked - plain) / workers:+.2f} ms", f"{masked / plain - 1:+.1%}",
    )  # fmt: skip
    print("processor time:", "  ".join(row), flush=True)
    return row


def in_runs(workers: int, copies: int, size: int, rounds: int, runs: int) -> tuple[str, ...]:
    """The row of times between the beginning and the end of rounds of whole runs."""
    rounds *= MORE_ROUNDS if size < SHORT else 1
    seconds: dict[bool, list[float]] = {False: [], True: []}
    found: dict[bool, tuple[bytes, list[int], list[int]]] = {}
    for index in range(2 * runs):
        # Blind, open, open, blind, and so on, so that drifts of the machine count for both.
        blind = index % 4 in (0, 3)
        report, models = one_run(workers, copies, size, rounds, blind=blind)
        seconds[blind] += [entry["seconds"] for entry in report["rounds"][WARM_UP:]]
        directions = report["uplink"], report["downlink_wire"]
        payload, heads = ([each[key] for each in directions] for key in ("payload_bytes", "framing_bytes"))
        found[blind] = models, payload, heads
    if found[True] != found[False]:
        sys.exit("the models, or the bytes of rows or of heads, of a blind run differ")
    plain, masked = (median(seconds[blind]) for blind in (False, True))
    row = (
        f"{workers} × {size:,} float32, {copies} copies", f"{1e3 * plain:.1f} ms", f"{1e3 * masked:.1f} ms",
        f"{1e3 * (masked - plain):+.2f} ms", f"{masked / plain - 1:+.1%}",
    )  # fmt: skip
    print("runs:", "  ".join(row), flush=True)
    return row


def one_run(
    workers: int, copies: int, size: int, rounds: int, *, blind: bool
) -> tuple[dict[str, Any], bytes]:
    """A run; its report, and the bytes of its models."""
    with tempfile.TemporaryDirectory() as name:
        report, models = Path(name) / "report.json", Path(name) / "models.npz"
        words = [
            sys.executable, "-m", "asyncdmtl", "run",
            "--data", f"synthetic:tasks={workers},rows=2,features={size - 1},parts=1,test_rows=0",
            "--workers", str(workers), "--copies", str(copies), "--strategy", "relay",
            "--rounds", str(rounds), "--tolerance", "0", "--strength", "0.01", "--coupling", "l21",
            "--dtype", "float32", "--update", "gradient", "--report", str(report), "--save", str(models),
            *["--blind"] * blind,
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        saved = SavedModel.load(models).models
        return json.loads(report.read_text()), np.append(saved.coef_, saved.intercept_).tobytes()


if __name__ == "__main__":
    main()
