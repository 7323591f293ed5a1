"""Measure rounds with a late worker, in network namespaces: seconds with and without `--silent`.

    sudo .venv/bin/python tools/measure_late_workers.py --rounds 40

Five workers have links of 100 Mbit/s; the server's link is not limited. One worker is stopped (SIGSTOP) for
two seconds after every fifth round, or runs only a third of the time, 20 ms in 60. The same training is
made without a slow worker, and with one, with and without `--silent 1`. The models must agree bit for bit
before a line is printed. Seconds are the medians of the server's rounds.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import click
from launch import OnRound, train_on_links, with_group
from results import Table, results_option, write_results

from asyncdmtl.plan.placement import Placement

# Seconds after which a run has failed.
LIMIT = 600.0

# The worker that is slow.
SLOW = "w3"

# Seconds for which it is stopped, and the number of rounds from one stop to the next.
STOPPED, EVERY = 2.0, 5

# Seconds in which the worker that runs a third of the time runs, and stands still.
RUNS, STANDS = 0.02, 0.04


class Stops:
    """Stops the slow worker for `STOPPED` seconds after every `EVERY` rounds."""

    def __call__(self, number: int, workers: Mapping[str, subprocess.Popen[str]]) -> None:
        """Note the end of a round."""
        if number % EVERY == EVERY - 1:
            with_group(workers[SLOW], signal.SIGSTOP)
            threading.Timer(STOPPED, with_group, (workers[SLOW], signal.SIGCONT)).start()


class Thirds:
    """Lets the slow worker run a third of the time, from the end of the first round on."""

    def __init__(self) -> None:
        self._started = False

    def __call__(self, number: int, workers: Mapping[str, subprocess.Popen[str]]) -> None:
        """Note the end of a round."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._slow_down, args=(workers[SLOW],), daemon=True).start()

    def _slow_down(self, worker: subprocess.Popen[str]) -> None:
        pause = threading.Event()
        while worker.poll() is None:
            with_group(worker, signal.SIGSTOP)
            pause.wait(STANDS)
            with_group(worker, signal.SIGCONT)
            pause.wait(RUNS)


@click.command(context_settings={"show_default": True})
@click.option("--features", default=200_000, help="Numbers in a vector, float64.")
@click.option("--copies", default=3)
@click.option("--rounds", default=40)
@click.option("--rate", default="100mbit", help="Limit of each worker's link, each way.")
@click.option("--strategy", default="relay")
@results_option
def main(
    features: int, copies: int, rounds: int, rate: str, strategy: str, results_file: Path | None
) -> None:
    """Compare runs with and without a slow worker."""
    spec = f"synthetic:tasks=5,rows=4,parts=1,features={features},test_rows=0"
    placement = Placement.cyclic(5, 5, copies)
    common = ["--coupling", "l21", "--strength", "0.1", "--rounds", str(rounds), "--strategy", strategy]
    print(f"5 workers, {copies} copies, {features} float64, {strategy}, links {rate}")
    print(f"{'':34}{'a round':>10}{'all':>10}")
    slow: dict[str, Callable[[], OnRound | None]] = {
        "no worker is slow": lambda: None,
        f"{SLOW} stops 2 s every 5 rounds": Stops,
        f"{SLOW} runs a third of the time": Thirds,
    }
    rates = dict.fromkeys(placement.workers, rate)
    rows, expected = [], None
    for silent in (0, 1):
        for name, make in slow.items():
            trained, models = train_on_links(
                placement, spec, [*common, "--silent", str(silent)], rates, LIMIT, make()
            )
            expected = expected or models
            if models != expected:
                raise click.ClickException(
                    f"--silent {silent}, {name}: the models are not those of the first run"
                )
            seconds = [b - a for a, b in pairwise(trained.times)]
            cells = (
                f"--silent {silent}", name, f"{statistics.median(seconds):.3f} s", f"{sum(seconds):.1f} s"
            )  # fmt: skip
            print(f"{cells[0]:12}{cells[1]:32}{cells[2]:>10}{cells[3]:>10}", flush=True)
            rows.append(cells)
    if results_file is not None:
        head = ("", "", "a round (median)", "all rounds")
        write_results(results_file, [Table(results_file.stem, head, tuple(rows))])


if __name__ == "__main__":
    main()
