"""Measure the cost of many workers and long vectors: `python tools/measure_scale.py --workers 10,50,200`.

Runs `python -m asyncdmtl.server` and worker sessions, several in a process if memory does not suffice for a
process each, over TCP on the loopback; prints the server's processor time and memory per round as workers and
vectors grow. `--light` is for more workers than this machine has room for: those of a process share plan and
data, exchange updates that are there already, and take no steps. Linux only.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import click
import numpy as np
from exchange_only import ExchangeTrainer
from launch import follow, processes
from measure_memory import Watch
from namespaces import HERE
from results import Table, results_option, write_results

from asyncdmtl.arrays import Vectors
from asyncdmtl.data import recipes
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, PartitionInfo
from asyncdmtl.learning.zero_models import ZeroModels
from asyncdmtl.net import event_loop
from asyncdmtl.plan.downlinks import FORWARDING
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages import rounds
from asyncdmtl.worker import plan_check
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

# The most seconds of a run.
LIMIT = 3600.0

# The workers of a process that connect within a second. A server lets at most 256 from one address join at a
# moment, while 1,000 hosts have as many addresses.
AT_ONCE = 50

# The first word of a command that runs worker sessions.
SESSIONS, LIGHT = "sessions", "light-sessions"

# Seconds of silence that server and workers permit. A busy machine delays heartbeats.
SILENCE = 300.0


@dataclass(frozen=True)
class Scale:
    """A run's size and the cost of a round. Seconds are medians; bytes and memory are those of the server.

    `start_seconds` is the time from the server's start to its plan. `memory_before` is the server's memory at
    the time of the plan, and `memory` the peak above that in any round; both are in bytes.
    """

    workers: int
    partitions: int
    copies: int
    numbers: int
    strategy: str
    subpackets: int
    start_seconds: float
    seconds: float
    processor_seconds: float
    bytes: int
    memory_before: int
    memory: int


def processor_seconds(process: int) -> float:
    """Processor time and memory that a process has used so far."""
    words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")


async def take_part(host: str, port: int, spec: str, names: Sequence[str]) -> None:
    """Run worker sessions in this process; each of `names` is `name=partition,partition`."""
    stored = {name: parts.split(",") for name, _, parts in (word.partition("=") for word in names)}
    wanted = sorted(set().union(*stored.values()))
    found = {part.id: part for part in recipes.load(spec, seed=0, only=wanted, test=False).partitions}
    sessions = []
    for count, (name, own) in enumerate(stored.items(), 1):
        options = WorkerOptions(name, LIMIT, LIMIT, LIMIT, SILENCE)
        worker = Worker(options, [found[part] for part in own])
        sessions.append(asyncio.create_task(worker.run(host, port)))
        if not count % AT_ONCE:
            await asyncio.sleep(1.0)
    await asyncio.gather(*sessions)


class LightTrainer(ExchangeTrainer):
    """Has the updates of `exchange_only.py`, and models that all workers of a process share."""

    def __init__(self, problem: Problem, partitions: Mapping[int, Partition]) -> None:
        self.problem = problem
        self.own = tuple(sorted(partitions))
        self.outcome = None
        self.zeros = ZeroModels(problem)
        self._round, self._filled = 0, False

    @property
    def W(self) -> Vectors:  # noqa: N802 - the textbook's symbol
        """The initial models."""
        return _initial_models(self.problem)

    @property
    def residual(self) -> float:
        """Never so small that a run ends."""
        return math.inf


@functools.cache
def _initial_models(problem: Problem) -> Vectors:
    return np.zeros((len(problem.tasks), problem.d), problem.dtype)


def share_plans() -> None:
    """Let all workers of this process have one plan, one problem and one description of each partition."""
    rebuild, plans, problems = plan_check.rebuild, {}, {}  # type: ignore[attr-defined]

    def rebuilt(recipe: Any, digest: bytes) -> Any:
        if digest not in plans:
            plans[digest] = rebuild(recipe, digest)
        return plans[digest]

    def problem(settings: Settings, infos: Sequence[PartitionInfo]) -> Problem:
        named = tuple(info.id for info in infos)
        if named not in problems:
            problems[named] = Problem(settings, infos)
        return problems[named]

    @functools.cache
    def info(*fields: Any) -> PartitionInfo:
        return parse_info(list(fields))

    parse_info = rounds.parse_info  # type: ignore[attr-defined]
    rounds.parse_info = lambda item: info(*item)  # type: ignore[attr-defined]
    plan_check.rebuild = rebuilt  # type: ignore[attr-defined]
    plan_check.Problem = problem  # type: ignore[attr-defined, assignment]
    plan_check.make_trainer = LightTrainer  # type: ignore[attr-defined]


def measure(
    placement: Placement,
    tasks: int,
    numbers: int,
    copies: int,
    strategy: str,
    rounds: int,
    together: int,
    *,
    light: bool,
) -> Scale:
    """Make a run with several worker sessions in each process."""
    parts = len(placement.partitions) // tasks
    spec = f"synthetic:tasks={tasks},rows={parts},parts={parts},features={numbers},rank=1,test_rows=0"
    names = [f"{name}={','.join(stored)}" for name, stored in placement.as_dict().items()]
    with processes({}, LIMIT) as started:
        server = started.start(
            HERE, sys.executable, "-m", "asyncdmtl.server", "--listen", "127.0.0.1:0", "--format", "json",
            "--log-level", "error", "--data", spec, "--workers", str(len(names)), "--strategy", strategy,
            "--coupling", "l21", "--intercept", "none", "--dtype", "float32", "--rounds", str(rounds),
            "--silence-timeout", str(SILENCE),
        )  # fmt: skip
        address = started.event(server)
        where = (address["host"], str(address["port"]), spec)
        sessions = [
            started.start(
                HERE,
                sys.executable,
                __file__,
                LIGHT if light else SESSIONS,
                *where,
                *names[first : first + together],
            )
            for first in range(0, len(names), together)
        ]
        watch, began = Watch(server.pid), time.perf_counter()
        peaks: list[int] = []
        times: list[float] = []
        used: list[float] = []

        def note(event: dict[str, Any]) -> None:
            nonlocal began
            if event["event"] == "planned":
                began, before = time.perf_counter() - began, watch.resident()
                watch.peak()
                peaks.append(before)
            elif event["event"] == "round":
                peaks.append(watch.peak())
                times.append(event["seconds"])
            if event["event"] in ("planned", "round"):
                used.append(processor_seconds(server.pid))

        report = follow(started, server, note)
        watch.end()
        for process in (server, *sessions):
            started.end(process)
    made = report["rounds"]
    return Scale(
        workers=len(names),
        partitions=len(placement.partitions),
        copies=copies,
        numbers=numbers,
        strategy=strategy,
        subpackets=report["vector"]["subpackets"],
        start_seconds=began,
        seconds=statistics.median(times),
        processor_seconds=statistics.median(later - earlier for earlier, later in pairwise(used)),
        bytes=made[-1]["up_bytes"] + made[-1]["down_bytes"],
        memory_before=peaks[0],
        memory=max(peaks[1:]) - peaks[0],
    )


HEAD = (
    f"{'workers':>7} {'parts':>6} {'copies':>6} {'numbers':>9} {'packets':>7} {'start':>8} {'a round':>9} "
    f"{'processor':>9} {'MB':>9} {'s per GB':>8} {'memory before':>13} {'more':>9}"
)


def line(scale: Scale) -> str:
    """The line of the output for a run."""
    return (
        f"{scale.workers:7} {scale.partitions:6} {scale.copies:6} {scale.numbers:9} {scale.subpackets:7} "
        f"{scale.start_seconds:6.1f} s {scale.seconds:7.3f} s {scale.processor_seconds:7.3f} s "
        f"{scale.bytes / 1e6:9.2f} {scale.processor_seconds / scale.bytes * 1e9:8.2f} "
        f"{scale.memory_before / 1e6:10.0f} MB {scale.memory / 1e6:6.0f} MB"
    )


COLUMNS = (
    "workers × partitions × float32", "a round", "processor time of the server", "sent and received",
    "memory before", "more at the peak",
)  # fmt: skip


def cells(scale: Scale) -> tuple[str, ...]:
    """The cells of a run on the page."""
    return (
        f"{scale.workers} × {scale.partitions} × {scale.numbers:,}",
        f"{scale.seconds:.3f} s",
        f"{scale.processor_seconds:.3f} s",
        f"{scale.bytes / 1e6:,.1f} MB",
        f"{scale.memory_before / 1e6:.0f} MB",
        f"{scale.memory / 1e6:.0f} MB",
    )


@click.command(context_settings={"show_default": True})
@click.option("--workers", default="10,20,50,100,200")
@click.option("--partitions", type=int, help="As many as there are workers, unless given.")
@click.option("--tasks", type=int, help="As many as there are partitions, unless given.")
@click.option("--copies", default=3)
@click.option("--numbers", default="1000", help="float32 per vector.")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="relay")
@click.option("--rounds", default=10)
@click.option("--together", default=1, help="Worker sessions in a process.")
@click.option("--light", is_flag=True, help="Workers exchange only (relay or uncoded).")
@results_option
def main(
    workers: str,
    partitions: int | None,
    tasks: int | None,
    copies: int,
    numbers: str,
    strategy: str,
    rounds: int,
    together: int,
    light: bool,
    results_file: Path | None,
) -> None:
    """Measure the server as workers and vectors grow."""
    if light and strategy not in FORWARDING:
        raise click.UsageError(f"--light is for --strategy {' or '.join(FORWARDING)}")
    print(HEAD)
    found = []
    for count, length in product(map(int, workers.split(",")), map(int, numbers.split(","))):
        parts = partitions or count
        placement = Placement.cyclic(count, parts, copies)
        found.append(
            measure(placement, tasks or parts, length, copies, strategy, rounds, together, light=light)
        )
        print(line(found[-1]), flush=True)
    if results_file is not None:
        write_results(results_file, [Table(results_file.stem, COLUMNS, tuple(map(cells, found)))])


if __name__ == "__main__":
    if sys.argv[1:2] in ([SESSIONS], [LIGHT]):
        if sys.argv[1] == LIGHT:
            share_plans()
        event_loop.run(take_part(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
    else:
        main()
