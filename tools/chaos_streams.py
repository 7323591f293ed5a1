"""Disturb streams of jobs: `python tools/chaos_streams.py --streams 20`.

Workers are killed and started again, or stopped for longer than the silence that the server permits, while
jobs are in progress; some jobs have settings that no worker can train with. Every other job must end with the
models of an undisturbed stream, bit for bit, bad jobs must fail, and nothing may hang. With `--silent 1`,
rounds go on without the worker that is disturbed; jobs whose strategy does not permit that are left out.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from launch import SERVER, Processes, processes
from namespaces import HERE
from stream_cluster import Ended, StreamPlan, models_of, run_stream, start_worker

# The most seconds of one stream; an undisturbed one takes a few.
LIMIT = 180.0

# Seconds of silence after which server and workers give each other up.
SILENCE = 1.0

# Seconds for which a killed worker is away, and a stopped one stands still.
AWAY, STOPPED = (0.1, 1.5), (0.2, 2.5)

DATA = "synthetic:tasks=4,rows=40,features=30,parts=2,rank=1,test_rows=0"
JOBS: tuple[dict[str, Any], ...] = (
    {"name": "trace", "coupling": "nuclear", "strength": 0.05, "rounds": 120},
    {"name": "ridge", "coupling": "ridge", "strength": 0.1, "rounds": 160, "strategy": "central"},
    {"name": "bad", "loss": "logistic", "strength": 0.1, "rounds": 5},
    {"name": "l21", "coupling": "l21", "strength": 0.1, "rounds": 140, "seed": 3},
    {"name": "personal", "coupling": "l21", "strength": 0.2, "rounds": 100, "strategy": "personal"},
)


def jobs_of(silent: int) -> list[dict[str, Any]]:
    """The jobs of a stream that tolerates so many silent workers."""
    return [job for job in JOBS if not silent or job.get("strategy") != "personal"]


def good(silent: int) -> list[str]:
    """The names of those that can be trained."""
    return [str(job["name"]) for job in jobs_of(silent) if job["name"] != "bad"]


class Disturber:
    """Disturbs one worker at a time, at random rounds."""

    def __init__(self, started: Processes, plan: StreamPlan, seed: int) -> None:
        self.done: list[str] = []
        self._started = started
        self._plan = plan
        self._random = random.Random(seed)
        self._address = ""
        self._workers: dict[int, Any] = {}
        self._busy = threading.Event()
        self._timers: list[threading.Timer] = []

    def note(self, event: dict[str, Any]) -> None:
        """Disturb a worker at some rounds."""
        if event["event"] == "listening":
            self._address = f"{event['host']}:{event['port']}"
            # The server's process comes first.
            self._workers = dict(enumerate(self._started.processes[1:]))
        if event["event"] != "round" or self._busy.is_set() or self._random.random() > 0.02:
            return
        self._busy.set()
        k = self._random.randrange(self._plan.workers)
        process = self._workers[k]
        if process.poll() is not None:
            self._busy.clear()
        elif self._random.random() < 0.5:
            self.done.append(f"killed w{k}")
            os.killpg(process.pid, signal.SIGKILL)
            self._later(AWAY, lambda: self._restart(k))
        else:
            self.done.append(f"stopped w{k}")
            os.killpg(process.pid, signal.SIGSTOP)
            self._later(STOPPED, lambda: self._go_on(process))

    def close(self) -> None:
        """Wait for what is still to be done."""
        for timer in self._timers:
            timer.join()

    def _later(self, seconds: tuple[float, float], then: Callable[[], None]) -> None:
        timer = threading.Timer(self._random.uniform(*seconds), then)
        self._timers.append(timer)
        timer.start()

    def _restart(self, k: int) -> None:
        self._workers[k].wait()
        self._workers[k] = start_worker(self._started, HERE, self._address, k, self._plan)
        self._busy.clear()

    def _go_on(self, process: Any) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)
        self._busy.clear()


def make(seed: int | None, silent: int) -> tuple[Ended, dict[str, set[str]], list[str]]:
    """Make the stream, disturbed by a seed: its end, digests of models, and the disturbances."""
    with tempfile.TemporaryDirectory() as name, processes({}, LIMIT) as started:
        more = (
            "--silence-timeout", str(SILENCE), "--tolerance", "0", "--update", "gradient",
            "--rejoin-timeout", "30", "--silent", str(silent),
        )  # fmt: skip
        plan = StreamPlan(DATA, 5, 3, jobs_of(silent), 3, Path(name), more)
        hosts = dict.fromkeys([SERVER, *(f"w{k}" for k in range(plan.workers))], HERE)
        disturber = Disturber(started, plan, seed or 0)
        ended = run_stream(started, hosts, plan, None if seed is None else disturber.note)
        disturber.close()
        for process in started.processes:
            if process.poll() is None:
                process.wait()
        return ended, {job: models_of(plan.folder, job, range(5)) for job in good(silent)}, disturber.done


@click.command()
@click.option("--streams", type=int, default=10)
@click.option("--seed", type=int, default=1, help="Of the first stream; the next ones count on.")
@click.option("--silent", type=int, default=0, help="Silent workers that jobs tolerate.")
def main(streams: int, seed: int, silent: int) -> None:
    """Make an undisturbed stream and disturbed ones, and compare them."""
    calm, models, _ = make(None, silent)
    if list(calm.errors) != ["bad"] or any(
        len(found) != 1 for job, found in models.items() if job != "personal"
    ):
        raise click.ClickException(
            f"the undisturbed stream is not as it should be: {calm.code}, {calm.errors}"
        )
    for number in range(seed, seed + streams):
        ended, found, done = make(number, silent)
        # A worker that is away at the end of a job has no models of it.
        wrong = [job for job in models if not found[job] or found[job] - models[job]]
        order = [name for name in ended.ends if name in models]
        if list(ended.errors) != ["bad"] or wrong or order != good(silent):
            raise click.ClickException(
                f"stream {number} ({', '.join(done)}): failed {ended.errors}, wrong {wrong}, order {order}"
            )
        reports = ended.reports.values()
        lost = sum(len(report["incidents"]) for report in reports)
        late = sum(each["rounds"] for report in reports for each in report.get("late", {}).values())
        click.echo(
            f"stream {number}: {len(done)} disturbances, {lost} incidents in rounds, "
            f"{late} rounds without a late worker, {ended.seconds:.1f} s; all models are right"
        )


if __name__ == "__main__":
    main()
