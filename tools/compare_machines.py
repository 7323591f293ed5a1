"""Compare the bits of runs on different machines: `python tools/compare_machines.py --numpy 2.0.2`.

This CPU simulates others: OpenBLAS uses the kernels of other CPUs, NumPy does not use some features of this
one, and other versions of NumPy are installed for some of the processes. First every loss, coupling,
aggregate and kind of update is trained in one process on each machine, and the digests of all models are
compared; with `--thorough` in all combinations. Then real runs are made whose server and workers are on
different machines, on tables of their own with columns from 1e-6 to 1e6.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from asyncdmtl.arithmetic.probe import describe
from asyncdmtl.digests import UNKEYED
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train

# Features of x86 for which NumPy has kernels, by the names of its versions.
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
AVX2 = "AVX2 FMA3 X86_V3"

ROUNDS = 3

# Seconds that a real run may take.
LIMIT = 300.0

# The data of real runs, and the number of their partitions.
DATA, PARTITIONS = "synthetic:tasks=6,features=40,rows=20,test_rows=0", 12


@dataclass(frozen=True)
class Machine:
    """A machine that this one simulates by environment variables; `name` is for people."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """The environment of a process on this machine."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPENBLAS", "NPY_"))}
        # NumPy warns about features that this CPU does not have at all.
        return kept | {"PYTHONWARNINGS": "ignore"} | dict(self.environment)


MACHINES = (
    Machine("as it is"),
    Machine("Haswell", {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": AVX512}),
    Machine("Prescott", {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": f"{AVX2} {AVX512}"}),
    Machine("Zen", {"OPENBLAS_CORETYPE": "Zen", "OPENBLAS_NUM_THREADS": "2"}),
    Machine("SkylakeX", {"OPENBLAS_CORETYPE": "SkylakeX", "OPENBLAS_NUM_THREADS": "1"})
    if "AVX512_SKX" in describe()["CPU"]
    else Machine("as it is, too"),
)
"""On a CPU of another architecture they are all the same machine, which does no harm. OpenBLAS takes whatever
kernels it is told to, and a CPU that lacks their instructions ends the process."""


def with_numpy(version: str, folder: Path) -> Machine:
    """A machine with another version of NumPy, which is installed into a folder."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, f"numpy=={version}"], check=True)
    paths = [str(folder), *filter(None, sys.path)]
    return Machine(f"NumPy {version}", {"PYTHONPATH": os.pathsep.join(paths)})


def both(one: Machine, other: Machine) -> Machine:
    """A machine that has what two machines have."""
    return Machine(f"{one.name}, {other.name}", {**one.environment, **other.environment})


# Sizes of features, written out because powers may depend on the machine; and those of thorough comparisons.
SIZES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1)
WIDE = (1e-6, 1e-4, 1e-3, 1.0, 1e2, 1e4, 1e6)


def partitions(loss: str, sizes: Sequence[float] = SIZES) -> list[Partition]:
    """Two partitions for each of four tasks, with features of very different sizes."""
    rng = np.random.default_rng(3)
    made = []
    for n in range(8):
        X = np.rint(rng.normal(size=(9, 7)) * 2.0**20) / 2.0**20 * np.array(sizes)
        y = np.rint(4.0 * X[:, 3] / sizes[3] + 4.0 * rng.normal(size=9)) / 4.0
        y = (y > 0.0).astype(np.float64) if LOSSES[loss].classification else y
        y = np.abs(y) if loss == "poisson" else y
        made.append(Partition(f"p{n}", f"t{n // 2}", X, y, np.arange(1.0, 10.0) if n == 5 else None))
    return made


EDGES = (("t0", "t1", 1.0), ("t1", "t3", 0.5))


def rounds_with(coupling: str) -> int:
    """Rounds; one with the coupling whose proximal operator takes thousands of iterations."""
    return 1 if coupling == "sparse-low-rank" else ROUNDS


def cases(arithmetic: str) -> Iterator[Settings]:
    """Every loss, coupling, aggregate, kind of update, dtype and compression."""
    common: dict[str, Any] = {"rounds": ROUNDS, "strength": 0.05, "arithmetic": arithmetic}
    for coupling in COUPLINGS:
        own = common | {"edges": EDGES if coupling == "graph" else (), "rounds": rounds_with(coupling)}
        yield Settings("squared", coupling, dtype="float64", **own)
    for loss in LOSSES:
        yield Settings(loss, "nuclear", update="newton" if loss == "poisson" else "gradient", **common)
    for aggregate in AGGREGATES:
        yield Settings("logistic", "nuclear", aggregate=aggregate, **common)
    for compression in ("float16", "bfloat16", "int8"):
        yield Settings("squared", "covariance", compression=compression, **common)
    for coupling in COUPLINGS:
        if coupling not in ("graph", "sparse-low-rank"):
            yield Settings("squared", coupling, update="statistics", accelerated=False, **common)
    for update in ("newton", "quasi-newton"):
        yield Settings("logistic", "nuclear", update=update, accelerated=False, **common)
    yield Settings("logistic", "l21", update="model", epochs=3, accelerated=False, **common)


def combinations(arithmetic: str) -> Iterator[Settings]:
    """All losses with all couplings, all kinds of updates and both dtypes."""
    for loss, coupling, dtype in itertools.product(LOSSES, COUPLINGS, ("float32", "float64")):
        for update in ("gradient", "newton", "quasi-newton", "model", "statistics"):
            if update == "statistics" and (loss != "squared" or coupling == "sparse-low-rank"):
                continue
            if loss == "poisson" and update != "newton":
                continue
            edges = EDGES if coupling == "graph" else ()
            yield Settings(
                loss, coupling, rounds=rounds_with(coupling), strength=0.05, edges=edges,
                update=update, accelerated=update == "gradient", dtype=dtype, arithmetic=arithmetic,
                epochs=2 if update == "model" else 1,
            )  # fmt: skip


def digests(arithmetic: str, *, thorough: bool = False, coupling: str | None = None) -> dict[str, str]:
    """The digest of the models of every case, trained here; of one coupling, if it is given."""
    found = {}
    for settings in (combinations if thorough else cases)(arithmetic):
        if coupling in (None, settings.coupling):
            quick = not thorough or (settings.coupling == "sparse-low-rank" and settings.update != "gradient")
            models = train(partitions(settings.loss, SIZES if quick else WIDE), settings).models
            name = " ".join(
                [
                    settings.loss, settings.coupling, settings.aggregate, settings.update,
                    settings.compression, settings.dtype,
                ]
            )  # fmt: skip
            found[name] = (UNKEYED(models.coef_) + UNKEYED(models.intercept_)).hex()
    return found


def digests_on(
    machine: Machine, arithmetic: str, *, thorough: bool = False, coupling: str | None = None
) -> dict[str, str]:
    """The same, trained in a process on another machine."""
    command = [sys.executable, __file__, "--here", "--arithmetic", arithmetic]
    command += ["--thorough"] if thorough else []
    command += ["--coupling", coupling] if coupling else []
    done = subprocess.run(command, env=machine.variables(), capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def write_tables(folder: Path, count: int) -> list[Path]:
    """CSV files of six tasks each, with columns from 1e-6 to 1e6, a target and a label."""
    rng = np.random.default_rng(4)
    sizes, paths = np.array([1e-6, 1e-3, 1.0, 1e3, 1e6]), []
    for n in range(count):
        X = rng.normal(size=(60, 5))
        y = X @ np.array([1.0, -1.0, 0.5, 2.0, -0.5]) + rng.normal(size=60)
        lines = ["task,a,b,c,d,e,target,label"]
        for i, (x, value) in enumerate(zip((X * sizes).tolist(), y.tolist(), strict=True)):
            lines.append(f"t{i % 6}," + ",".join(map(repr, x)) + f",{value!r},{int(value > 0.0)}")
        paths.append(folder / f"table{n}.csv")
        paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: exit codes, stderr and models of its members."""

    codes: dict[str, int]
    told: dict[str, str]
    models: dict[str, bytes]
    report: dict[str, Any]


def run_on(
    server: Machine,
    workers: Sequence[Machine],
    options: Sequence[str],
    target: str = "",
    limit: float = 300.0,
) -> Outcome:
    """Make a real run, each process on a machine of its own, on `DATA` or to predict a column of tables.

    Worker `k` of `K` stores all partitions but those whose number leaves `k` when divided by `K`, or all
    tables but the `k`-th: then all are stored more than once, and all must travel.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs = {name: folder / f"{name}.log" for name in ["server", *(f"w{k}" for k in range(len(workers)))]}

        def end(process: subprocess.Popen[str]) -> None:
            process.kill()
            process.communicate()

        def start(name: str, machine: Machine, *words: str) -> subprocess.Popen[str]:
            stderr = stack.enter_context(logs[name].open("w"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"asyncdmtl.{'server' if name == 'server' else 'worker'}", *words],
                env=machine.variables(), stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
            stack.callback(end, process)
            return process

        tables = write_tables(folder, len(workers)) if target else []
        data = [] if target else ["--data", DATA]
        serving = start("server", server, "--listen", "127.0.0.1:0", "--json", *data, *options)
        assert serving.stdout is not None
        listening = json.loads(serving.stdout.readline())
        address = f"{listening['host']}:{listening['port']}"
        started = {"server": serving}
        for k, machine in enumerate(workers):
            stored = ",".join(f"p{n}" for n in range(PARTITIONS) if n % len(workers) != k)
            words = ["--connect", address, "--name", f"w{k}"]
            if target:
                own = ",".join(str(path) for n, path in enumerate(tables) if n != k)
                omitted = "label" if target == "target" else "target"
                words += ["--data", own, "--task", "task", "--target", target, "--omit", omitted]
            else:
                words += [*data, "--partitions", stored]
            started[f"w{k}"] = start(f"w{k}", machine, *words, "--save", str(folder / f"w{k}.npz"))
        lines = [json.loads(line) for line in serving.communicate(timeout=LIMIT)[0].splitlines()]
        codes = {name: process.wait(LIMIT) for name, process in started.items()}
        models = {}
        for name in started:
            if (path := folder / f"{name}.npz").exists():
                with np.load(path) as saved:
                    models[name] = UNKEYED(saved["coef_"]) + UNKEYED(saved["intercept_"])
        told = {name: path.read_text() for name, path in logs.items()}
        return Outcome(codes, told, models, lines[-1] if lines else {})


def runs() -> Iterator[tuple[str, str]]:
    """Options of real runs, and the column that they predict."""
    for coupling in COUPLINGS:
        if coupling != "graph":  # which needs a file
            yield f"--coupling {coupling} --strength 0.05", "target"
    for loss in LOSSES:
        if loss == "poisson":  # whose targets would have to be counts
            continue
        for update in ("gradient", "newton", "quasi-newton"):
            target = "label" if LOSSES[loss].classification else "target"
            yield f"--loss {loss} --coupling nuclear --strength 0.05 --update {update}", target
    yield "--update statistics --coupling covariance --strength 0.05", "target"
    yield "--update statistics --strength auto", "target"
    for strategy in ("central", "personal", "uncoded"):
        yield f"--strategy {strategy} --coupling l21 --strength 0.05", "target"


@click.command()
@click.option(
    "--numpy", "versions", multiple=True, help="Another version of NumPy to install and to compare."
)
@click.option("--thorough", is_flag=True, help="Train all losses with all couplings, updates and dtypes.")
@click.option("--here", is_flag=True, help="Only print the digests of this machine as JSON.")
@click.option("--coupling", type=click.Choice(list(COUPLINGS)), help="Only this one, with --here.")
@click.option("--arithmetic", default="reproducible", type=click.Choice(("reproducible", "fast")))
def main(
    versions: tuple[str, ...], thorough: bool, here: bool, coupling: str | None, arithmetic: str
) -> None:
    """Compare all machines that this one can simulate."""
    if here:
        click.echo(json.dumps(digests(arithmetic, thorough=thorough, coupling=coupling)))
        return
    for name, value in describe().items():
        click.echo(f"{name}: {value}")
    with tempfile.TemporaryDirectory() as folder:
        others = [with_numpy(v, Path(folder) / v) for v in versions]
        machines = [*MACHINES, *others, *(both(MACHINES[2], other) for other in others)]
        wrong = compare_models(machines, arithmetic, thorough)
        if arithmetic == "reproducible":
            wrong += compare_runs(machines)
    if wrong:
        raise SystemExit(1)


def compare_models(machines: Sequence[Machine], arithmetic: str, thorough: bool) -> int:
    """Train every case on each machine; how many differ from the first machine's."""
    expected = digests_on(machines[0], arithmetic, thorough=thorough)
    wrong = 0
    for machine in machines[1:]:
        found = digests_on(machine, arithmetic, thorough=thorough)
        differing = [name for name in expected if found[name] != expected[name]]
        wrong += len(differing)
        click.echo(f"{machine.name}: {len(expected) - len(differing)} of {len(expected)} cases the same")
        for name in differing:
            click.echo(f"  differs: {name}")
    return wrong


def compare_runs(machines: Sequence[Machine]) -> int:
    """Make real runs on the last machine and three others; how many have incidents or other models."""
    wrong = 0
    for options, target in runs():
        rounds = 2 if "sparse-low-rank" in options else 20
        words = ["--workers=3", f"--rounds={rounds}", *options.split()]
        outcome = run_on(machines[2], [machines[-1], machines[1], machines[3]], words, target)
        same = len(set(outcome.models.values())) == 1 and len(outcome.models) == 3
        quiet = same and not outcome.report["report"]["incidents"]
        wrong += not quiet
        click.echo(f"run with {options}: {'the same models, no incident' if quiet else outcome}")
    return wrong


if __name__ == "__main__":
    main()
