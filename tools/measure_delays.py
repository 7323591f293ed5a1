"""Compare a stream of jobs on slowed workers with its simulation: `python tools/measure_delays.py`.

Workers are processes whose processor time is limited by cgroups (version 1, as root), each to a share of its
own. First jobs are made one after the other, which measures the time between the ends of jobs. The end of a
job is told before its workers have left it, so that a job whose workers have been idle takes less; jobs with
pauses between them measure how long. Then jobs arrive at random moments. Their mean delay, from arrival until
they and all before them have ended, is compared with a simulation of the same arrivals: with the measured
times, jobs one by one, and several at a time; for equal numbers of partitions at each worker, and for numbers
by its share. Other programs, which share the caches, may change the processor time of a job from one minute
to the next, so that the simulation has that of the jobs that arrived.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from launch import WORKER, Processes, processes
from namespaces import HERE
from numpy.typing import NDArray
from results import Table, results_option, write_results
from stream_cluster import processor_seconds

from asyncdmtl.data import recipes
from asyncdmtl.learning.settings import Settings
from asyncdmtl.net import event_loop
from asyncdmtl.plan.delay.queueing import Moments, mean_delay
from asyncdmtl.plan.delay.simulation import poisson_arrivals, simulate
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import write_placement
from asyncdmtl.server.events import JobEvent, Joined, Listening, ServerEvent
from asyncdmtl.server.jobs import Job, JobOutcome, JobServer, StreamOptions
from asyncdmtl.server.records import RunOptions

# The group of processes that are slowed, below which each worker has one.
CGROUP = Path("/sys/fs/cgroup/cpu")

# The weight of slowed workers and of this process against other processes of the machine: so large that other
# work does not take from their shares.
WEIGHT = 1 << 17

# Microseconds after which the kernel gives a group its share again; few, so that work is smooth, but the
# smallest share must be 1 ms at least.
PERIOD = 50_000

# The most seconds of everything.
LIMIT = 3600.0

# Pieces of work of a job beside its rounds, after each of which the workers wait for each other: they declare
# their partitions, encode rows, and follow the plan.
MORE_PIECES = 3

# Seconds for which the rows of a round are on the wire. A slow worker takes the work of another job
# meanwhile, however short that is.
PAUSE = 0.001

# So many rows that workers compute for most of the time of a job: what else they do for several jobs at a
# time, such as joining, is not done in the order of the jobs, as computing is.
DATA = "synthetic:tasks=5,rows=8000,features=40,parts=2,rank=2,test_rows=0"
# The fewest jobs that are made one after the other, and with pauses.
LEAST_JOBS = 10

PARTITIONS = 10
COPIES = 2


@dataclass(frozen=True)
class Split:
    """How many partitions each worker stores, in words, and the placement."""

    name: str
    placement: Placement


def split_equally(workers: int) -> Split:
    """The same number of partitions at every worker."""
    return Split("equal", Placement.cyclic(workers, PARTITIONS, COPIES))


def split_by_shares(shares: Sequence[float]) -> Split:
    """Numbers of partitions by shares: each copy goes where it takes the shortest time altogether."""
    held: list[list[str]] = [[] for _ in shares]
    for n in range(PARTITIONS):
        for _ in range(COPIES):
            free = [k for k in range(len(shares)) if f"p{n}" not in held[k]]
            held[min(free, key=lambda k: (len(held[k]) + 1) / shares[k])].append(f"p{n}")
    return Split("by speed", Placement({f"w{k}": own for k, own in enumerate(held)}))


@contextmanager
def slowed(shares: Sequence[float], pids: Sequence[int]) -> Iterator[None]:
    """Limit each process to its share of one processor, and give it and this process that much at least."""
    made, slow = [], [*pids, os.getpid()]
    try:
        for share, pid in zip((*shares, None), slow, strict=True):
            group = CGROUP / f"dmtl-{secrets.token_hex(4)}"
            group.mkdir()
            made.append(group)
            (group / "cpu.shares").write_text(str(WEIGHT), encoding="ascii")
            if share is not None:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD), encoding="ascii")
                (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD)), encoding="ascii")
            (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
        yield
    finally:
        for group, pid in zip(made, slow, strict=False):
            if Path(f"/proc/{pid}").exists():
                (CGROUP / "cgroup.procs").write_text(str(pid), encoding="ascii")
            group.rmdir()


class Stream:
    """A server with a stream of jobs in this process, and its workers in processes."""

    def __init__(self, split: Split, rounds: int, in_flight: int) -> None:
        self.split = split
        self.joined = asyncio.Semaphore(0)
        self._rounds = rounds
        self._ends: dict[str, asyncio.Future[float]] = {}
        self._address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server = JobServer(StreamOptions(in_flight), self._note, self._told)
        self._task = asyncio.create_task(self._server.run("127.0.0.1", 0))

    async def start(self, started: Processes, folder: Path) -> list[int]:
        """Start the workers, and return their process numbers."""
        write_placement(self.split.placement, folder / "placement.json")
        address = await self._address
        return [
            started.start(
                HERE, sys.executable, *WORKER, "--connect", address, "--name", name, "--data", DATA,
                "--placement", str(folder / "placement.json"),
            ).pid
            for name in self.split.placement.workers
        ]  # fmt: skip

    async def submit(self) -> asyncio.Future[float]:
        """Submit a job; the result is the time at which its end was told."""
        settings = Settings(
            loss="squared", aggregate="mean", coupling="l21", strength=0.05, rounds=self._rounds,
            dtype="float64", intercept="free", seed=0, update="gradient",
        )  # fmt: skip
        name = f"job{len(self._ends)}"
        self._ends[name] = asyncio.get_running_loop().create_future()
        await self._server.submit(Job(name, RunOptions(settings, "relay", len(self.split.placement.workers))))
        return self._ends[name]

    async def end(self) -> None:
        """End the stream."""
        await self._server.end()
        await self._task

    def _note(self, event: ServerEvent) -> None:
        if isinstance(event, Listening):
            self._address.set_result(f"{event.host}:{event.port}")
        if isinstance(event, JobEvent) and isinstance(event.event, Joined):
            self.joined.release()

    def _told(self, outcome: JobOutcome) -> None:
        if outcome.error is not None:
            self._ends[outcome.job.name].set_exception(outcome.error)
        else:
            self._ends[outcome.job.name].set_result(time.perf_counter())


@dataclass(frozen=True)
class Measured:
    """What was measured of a stream, in seconds.

    Attributes
    ----------
    jobs : tuple of float
        Times between the ends of jobs that were made one after the other.
    alone : float
        The mean time of a job whose workers were idle.
    workers : tuple of float
        The mean time of a job at each worker, by its processor time and its share, of the jobs that arrived.
    slower : float
        The factor by which the slowest worker's is larger than for jobs that were made one after the other.
    arrivals, delays : tuple of float
        Moments at which jobs arrived, and how long each took until it and all before it had ended.
    """

    jobs: tuple[float, ...]
    alone: float
    workers: tuple[float, ...]
    slower: float
    arrivals: tuple[float, ...]
    delays: tuple[float, ...]


async def measure(
    split: Split, shares: Sequence[float], jobs: int, rounds: int, used: float, in_flight: int
) -> Measured:
    """Make jobs one after the other, and then jobs that arrive so often that a share of the time is used."""
    with tempfile.TemporaryDirectory() as name, processes({}, LIMIT) as started:
        stream = Stream(split, rounds, in_flight)
        pids = await stream.start(started, Path(name))
        await (await stream.submit())
        with slowed(shares, pids):
            await (await stream.submit())
            used_so_far, times = processor_times(pids, shares), []
            for _ in range(max(LEAST_JOBS, jobs // 4)):
                begun = time.perf_counter()
                times.append(await (await stream.submit()) - begun)
            serial = (processor_times(pids, shares) - used_so_far) / len(times)
            alone = []
            for _ in range(LEAST_JOBS):
                await asyncio.sleep(float(np.mean(times)) / 2)
                begun = time.perf_counter()
                alone.append(await (await stream.submit()) - begun)
            arrivals = poisson_arrivals(used / float(np.mean(times)), jobs, 5)
            used_so_far, begun, ends = processor_times(pids, shares), time.perf_counter(), []
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, begun + arrival - time.perf_counter()))
                ends.append(await stream.submit())
            delays = [await end - begun - a for end, a in zip(ends, arrivals, strict=True)]
            own = (processor_times(pids, shares) - used_so_far) / jobs
        await stream.end()
    slower = float(own.max() / serial[own.argmax()])
    return Measured(
        tuple(times), float(np.mean(alone)), tuple(own), slower, tuple(arrivals), tuple(delays)
    )  # fmt: skip


def processor_times(pids: Sequence[int], shares: Sequence[float]) -> NDArray[np.float64]:
    """The time for which each worker has computed so far, by its processor time and its share."""
    return np.array(list(map(processor_seconds, pids)), np.float64) / np.array(shares, np.float64)


def simulated(measured: Measured, rounds: int, in_flight: int, seed: int = 3) -> float:
    """The mean delay of the same arrivals by simulation.

    One by one, a job keeps the workers for a time as those of the measured jobs. Several at a time, it takes
    each worker its own time, in equal pieces for its rounds and `MORE_PIECES`, which vary as the times of the
    measured jobs did. In both cases a job's end is told when it has taken as long as one whose workers were
    idle.
    """
    random, mean = np.random.default_rng(seed), float(np.mean(measured.jobs))
    alone, slower = measured.alone * measured.slower, measured.slower
    if in_flight == 1:

        def drawn(job: int, round_: int) -> list[float]:
            return [float(random.choice(measured.jobs)) * slower]

        return float(simulate(measured.arrivals, drawn).delays.mean()) + alone - mean * slower

    def varied(job: int, round_: int) -> list[float]:
        factor = float(random.choice(measured.jobs)) / mean / pieces
        return [own * factor for own in measured.workers]

    pieces = rounds + MORE_PIECES
    made = simulate(measured.arrivals, varied, rounds=pieces, in_flight=in_flight, pause=PAUSE)
    return float(made.delays.mean()) + alone - max(measured.workers)


@click.command()
@click.option("--shares", default="0.08,0.16,0.24,0.24,0.24", help="Share of a processor for each worker.")
@click.option("--jobs", type=int, default=60, help="Jobs that arrive.")
@click.option("--rounds", type=int, default=8, help="Rounds of a job.")
@click.option("--used", type=float, default=0.6, help="Share of the time that jobs take one by one.")
@click.option("--in-flight", type=int, default=4)
@results_option
def main(shares: str, jobs: int, rounds: int, used: float, in_flight: int, results_file: Path | None) -> None:
    """Print measured, simulated and computed mean delays side by side."""
    own = [float(share) for share in shares.split(",")]
    assert len(recipes.load(DATA, seed=0, only=(), test=False).ids) == PARTITIONS
    rows = []
    for split in (split_equally(len(own)), split_by_shares(own)):
        for together in (1, in_flight):
            found = event_loop.run(measure(split, own, jobs, rounds, used, together))
            mean = float(np.mean(found.jobs))
            jobs_made = found.slower * np.array(found.jobs)
            moments = Moments(float(jobs_made.mean()), float(np.square(jobs_made).mean()))
            formula = mean_delay(used / mean, moments) + found.slower * (found.alone - mean)
            measured, expected = float(np.mean(found.delays)), simulated(found, rounds, together)
            rows.append(
                (split.name, str(together), f"{mean:.2f}", f"{found.alone:.2f}",
                 f"{max(found.workers):.2f}", f"{measured:.2f}",
                 f"{expected:.2f}", f"{measured / expected - 1:+.0%}",
                 f"{formula:.2f}" if together == 1 else "-")
            )  # fmt: skip
            click.echo(" | ".join(rows[-1]))
    head = (
        "partitions", "at a time", "a job (s)", "after a pause (s)", "of the slowest (s)",
        "measured delay (s)", "simulated (s)", "difference", "Pollaczek and Khinchine (s)",
    )  # fmt: skip
    table = Table("delays", head, tuple(rows))
    click.echo(table.markdown())
    if results_file is not None:
        write_results(results_file, [table])


if __name__ == "__main__":
    main()
