"""Measure the cost of arithmetic with the same bits on every machine: `python tools/bench_arithmetic.py`.

It times kernels beside NumPy's, and all computation of a round in one process, with both kinds of arithmetic.
Results are checked before times are printed. A time is the smallest processor time of some repetitions, on
one thread.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from asyncdmtl.arithmetic import elementary, products, solving, spectral
from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.arithmetic.probe import describe
from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer

Kernel = tuple[str, Callable[[], Any], Callable[[], Any]]


def least(work: Callable[[], object], seconds: float) -> float:
    """The smallest processor time of one call, from repetitions that take `seconds` in all."""
    best, end = np.inf, time.process_time() + seconds
    while time.process_time() < end:
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return float(best)


def kernels() -> list[Kernel]:
    """The kernels to compare: a name, our function and NumPy's."""
    rng = np.random.default_rng(0)
    found: list[Kernel] = []
    for r, F in ((55, 27), (40, 200), (4, 10_000), (4, 1_000_000)):
        X, w, s = rng.normal(size=(r, F)), rng.normal(size=F), rng.normal(size=r)
        by_column = np.asfortranarray(X) if X.nbytes <= 1 << 20 else X
        ours: Callable[..., Any] = products.matmul
        found.append((f"scores {r} × {F}", partial(ours, by_column, w), partial(np.matmul, X, w)))
        found.append((f"gradient {r} × {F}", partial(ours, s, X), partial(np.matmul, s, X)))
    for n in (27, 200):
        A = rng.normal(size=(n, n))
        S = A @ A.T
        found.append((f"product {n} × {n}", partial(ours, A, S), partial(np.matmul, A, S)))
        found.append(
            (f"eigenvectors {n} × {n}", partial(values, spectral.eigh, S), partial(values, np.linalg.eigh, S))
        )
    B = rng.normal(size=(139, 28, 40))
    S, b = B @ B.swapaxes(1, 2), rng.normal(size=(139, 28, 1))
    found.append(("139 systems 28 × 28", partial(solving.solve, S, b), partial(np.linalg.solve, S, b)))
    x = rng.normal(size=15_000)
    found.append(("exp of 15,000", partial(elementary.exp, x), partial(np.exp, x)))
    found.append(("softplus of 15,000", partial(elementary.softplus, x), partial(np.logaddexp, 0.0, x)))
    return found


def values(decompose: Callable[..., Any], S: Floats) -> Any:
    """The eigenvalues, which do not depend on signs; the vectors are computed, too, but not returned."""
    return decompose(S)[0]


def partitions(tasks: int, features: int, rows: int, per_task: int = 1) -> list[Partition]:
    """Random regression tasks."""
    rng = np.random.default_rng(1)
    return [
        Partition(f"p{n}", f"t{n // per_task}", rng.normal(size=(rows, features)), rng.normal(size=rows))
        for n in range(tasks * per_task)
    ]


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "139 tasks × 27, 2 × 55 rows": ((139, 27, 55, 2), {"dtype": "float64", "strength": 0.3}),
    "200 tasks × 200, 40 rows": ((200, 200, 40), {"dtype": "float64", "strength": 0.05}),
    "8 × 10,000 float32, 4 rows": ((8, 10_000, 4), {"strength": 0.001}),
    "8 × 1,000,000 float32, 4 rows": ((8, 1_000_000, 4), {"strength": 0.001}),
}


def one_round(stored: list[Partition], settings: Settings) -> Callable[[], None]:
    """All computation of a round, except for penalties, which only one worker computes."""
    problem = Problem(settings, [partition.info(settings) for partition in stored])
    trainer = Trainer(problem, dict(enumerate(stored)))
    updates = np.empty((len(stored), problem.d), problem.dtype)

    def work() -> None:
        trainer.local_updates(updates)
        trainer.step([problem.aggregate(t, updates[list(S)]) for t, S in enumerate(problem.partitions_of)])

    work()
    return work


SYNTHETIC = "--data synthetic:tasks={},features={},rows={},test_rows=0 --workers {} --copies {} --strength {}"

RUNS: dict[str, tuple[str, int]] = {
    "school data, 5 workers": ("--workers 5 --strength 0.3", 40),
    "8 × 10,000 float32, 8 workers, 4 copies": (SYNTHETIC.format(8, 10_000, 4, 8, 4, 0.001), 80),
    "8 × 1,000,000 float32, 8 workers, 4 copies": (SYNTHETIC.format(8, 1_000_000, 4, 8, 4, 0.001), 8),
    "200 tasks × 200 features, 4 workers, 2 copies": (SYNTHETIC.format(200, 200, 40, 4, 2, 0.05), 40),
}
"""Options of real runs on sockets, and rounds."""


class Code(NamedTuple):
    """A version of the program: its folder and its options."""

    name: str
    folder: Path
    options: tuple[str, ...]


def run(code: Code, options: str, coupling: str, rounds: int) -> tuple[float, float, float]:
    """Seconds of a round, processor seconds of all processes, and the last objective, of a real run."""
    words = [*options.split(), "--coupling", coupling, "--rounds", str(rounds), *code.options, "--json"]
    command = [sys.executable, "-m", "asyncdmtl", "run", "--update", "gradient", "--tolerance", "0", *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=code.folder, env=os.environ | {"PYTHONPATH": str(code.folder)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = json.loads(done.stdout.splitlines()[-1])["report"]["rounds"]
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(np.median([each["seconds"] for each in made[2:]])), spent, made[-1]["objective"]


def compare_runs(
    codes: Sequence[Code], name: str, options: str, coupling: str, rounds: int, times: int
) -> None:
    """Tell the seconds of a round of each code, and the processor seconds of all processes together.

    The latter are the difference of a long run and a short one, so that start and data do not count. Codes
    take turns, and the least of some times is told.
    """
    walls, spent = np.full(len(codes), np.inf), np.full((len(codes), 2), np.inf)
    for _ in range(times):
        objectives = []
        for i, code in enumerate(codes):
            wall, long, objective = run(code, options, coupling, 4 * rounds)
            _, short, _ = run(code, options, coupling, rounds)
            walls[i] = min(walls[i], wall)
            spent[i] = np.minimum(spent[i], (long, short))
            objectives.append(objective)
        np.testing.assert_allclose(objectives, objectives[0], rtol=1e-3)
    each = (spent[:, 0] - spent[:, 1]) / (3 * rounds)
    for i, code in enumerate(codes):
        click.echo(
            f"{name}, {coupling}, {code.name}: {1e3 * walls[i]:8.1f} ms (× {walls[i] / walls[0]:.2f}), "
            f"processors {1e3 * each[i]:8.1f} ms (× {each[i] / each[0]:.2f})"
        )


def runs(before: Path | None, school: Path | None, coupling: Sequence[str], only: str, times: int) -> None:
    """Measure real runs with both kinds of arithmetic, and with an older version."""
    here = Path(__file__).parents[1]
    codes = [Code("before", before.resolve(), ())] if before else []
    codes += [Code(kind, here, ("--arithmetic", kind)) for kind in ("fast", "reproducible")]
    for name, (options, rounds) in RUNS.items():
        if only not in name:
            continue
        if "--data" not in options:
            if school is None:
                continue
            options += f" --data {school.resolve()} --task school --target score"
        for chosen in coupling:
            compare_runs(codes, name, options, chosen, rounds, times)


@click.command()
@click.option("--seconds", default=1.0, show_default=True, help="Processor time for each figure.")
@click.option("--coupling", multiple=True, default=("l21", "nuclear"), show_default=True)
@click.option("--real", is_flag=True, help="Measure real runs instead, all processes on this machine.")
@click.option("--before", type=click.Path(path_type=Path), help="Folder of an older version, for --real.")
@click.option("--school", type=click.Path(path_type=Path), help="The school data as CSV, for --real.")
@click.option("--only", default="", help="Part of the names of runs to make, for --real.")
@click.option("--times", default=2, show_default=True, help="Runs of each kind, for --real.")
def main(
    seconds: float,
    coupling: tuple[str, ...],
    real: bool,
    before: Path | None,
    school: Path | None,
    only: str,
    times: int,
) -> None:
    """Measure kernels and rounds."""
    for name, value in describe().items():
        click.echo(f"{name}: {value}")
    with single_threaded():
        if real:
            runs(before, school, coupling, only, times)
        else:
            computation(seconds, coupling)


def computation(seconds: float, coupling: Sequence[str]) -> None:
    """Measure kernels, and the computation of rounds."""
    for name, ours, numpys in kernels():
        np.testing.assert_allclose(ours(), numpys(), rtol=1e-9, atol=1e-9)
        own, other = least(ours, seconds), least(numpys, seconds)
        told = f"NumPy {1e6 * other:10.1f} µs, reproducible {1e6 * own:10.1f} µs"
        click.echo(f"{name:24} {told}: × {own / other:.1f}")
    for name, (sizes, changes) in CASES.items():
        stored = partitions(*sizes)
        for chosen in coupling:
            spent = {}
            for arithmetic in ARITHMETICS:
                given: dict[str, Any] = {"rounds": 1, "arithmetic": arithmetic} | changes
                spent[arithmetic] = least(one_round(stored, Settings("squared", chosen, **given)), seconds)
            told = ", ".join(f"{kind} {1e3 * value:8.2f} ms" for kind, value in spent.items())
            click.echo(f"{name}, {chosen}: {told}: × {spent['reproducible'] / spent['fast']:.2f}")


if __name__ == "__main__":
    main()
