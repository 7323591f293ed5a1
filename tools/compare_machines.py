"""Compare the bits of runs on different machines: `python tools/compare_machines.py --numpy 2.0.2`.

This CPU simulates others: OpenBLAS uses the kernels of other CPUs, NumPy does not use some features of this
one, and another version of NumPy is installed for some of the processes. First every loss, coupling,
aggregate and kind of update is trained in one process on each machine, and the digests of all models are
compared. Then real runs are made whose server and workers are on different machines.
"""

from __future__ import annotations

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

ROUNDS = 8

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
    Machine("SkylakeX", {"OPENBLAS_CORETYPE": "SkylakeX", "OPENBLAS_NUM_THREADS": "1"}),
)
"""On a CPU of another architecture they are all the same machine, which does no harm."""


def with_numpy(version: str, folder: Path) -> Machine:
    """A machine with another version of NumPy, which is installed into a folder."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, f"numpy=={version}"], check=True)
    paths = [str(folder), *filter(None, sys.path)]
    return Machine(f"NumPy {version}", {"PYTHONPATH": os.pathsep.join(paths)})


def partitions(loss: str) -> list[Partition]:
    """Two partitions for each of four tasks, with features whose sizes differ by six orders of magnitude."""
    rng = np.random.default_rng(3)
    # Written out, because powers may depend on the machine.
    sizes = np.array([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1])
    made = []
    for n in range(8):
        X = np.rint(rng.normal(size=(9, 7)) * 2.0**20) / 2.0**20 * sizes
        y = np.rint(X[:, 3] * 1e3 + 4.0 * rng.normal(size=9)) / 4.0
        y = (y > 0.0).astype(np.float64) if LOSSES[loss].classification else y
        made.append(Partition(f"p{n}", f"t{n // 2}", X, y, np.arange(1.0, 10.0) if n == 5 else None))
    return made


def cases(arithmetic: str) -> Iterator[Settings]:
    """Every loss, coupling, aggregate, kind of update, dtype and compression."""
    edges = (("t0", "t1", 1.0), ("t1", "t3", 0.5))
    common: dict[str, Any] = {"rounds": ROUNDS, "strength": 0.05, "arithmetic": arithmetic}
    for coupling in COUPLINGS:
        graph = edges if coupling == "graph" else ()
        yield Settings("squared", coupling, edges=graph, dtype="float64", **common)
    for loss in LOSSES:
        yield Settings(loss, "nuclear", **common)
    for aggregate in AGGREGATES:
        yield Settings("logistic", "nuclear", aggregate=aggregate, **common)
    for compression in ("float16", "bfloat16", "int8"):
        yield Settings("squared", "covariance", compression=compression, **common)
    for coupling in COUPLINGS:
        if coupling != "graph":
            yield Settings("squared", coupling, update="statistics", accelerated=False, **common)
    for update in ("newton", "quasi-newton"):
        yield Settings("logistic", "nuclear", update=update, accelerated=False, **common)
    yield Settings("logistic", "l21", update="model", epochs=3, accelerated=False, **common)


def digests(arithmetic: str) -> dict[str, str]:
    """The digest of the models of every case, trained here."""
    found = {}
    for settings in cases(arithmetic):
        models = train(partitions(settings.loss), settings).models
        name = " ".join(
            [settings.loss, settings.coupling, settings.aggregate, settings.update, settings.compression]
        )
        found[name] = (UNKEYED(models.coef_) + UNKEYED(models.intercept_)).hex()
    return found


def digests_on(machine: Machine, arithmetic: str) -> dict[str, str]:
    """The digest of the models of every case, trained in a process on another machine."""
    command = [sys.executable, __file__, "--here", "--arithmetic", arithmetic]
    done = subprocess.run(command, env=machine.variables(), capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: exit codes, stderr and models of its members."""

    codes: dict[str, int]
    told: dict[str, str]
    models: dict[str, bytes]
    report: dict[str, Any]


def run_on(
    server: Machine, workers: Sequence[Machine], options: Sequence[str], limit: float = 300.0
) -> Outcome:
    """Make a real run on `DATA`, each process on a machine of its own.

    Worker `k` of `K` stores all partitions except those with number `k` modulo `K`, so that all partitions
    have several copies and all updates must travel.
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

        serving = start("server", server, "--listen", "127.0.0.1:0", "--json", "--data", DATA, *options)
        assert serving.stdout is not None
        listening = json.loads(serving.stdout.readline())
        address = f"{listening['host']}:{listening['port']}"
        started = {"server": serving}
        for k, machine in enumerate(workers):
            stored = ",".join(f"p{n}" for n in range(PARTITIONS) if n % len(workers) != k)
            words = ["--connect", address, "--name", f"w{k}", "--data", DATA, "--partitions", stored]
            started[f"w{k}"] = start(f"w{k}", machine, *words, "--save", str(folder / f"w{k}.npz"))
        lines = [json.loads(line) for line in serving.communicate(timeout=limit)[0].splitlines()]
        codes = {name: process.wait(limit) for name, process in started.items()}
        models = {}
        for name in started:
            if (path := folder / f"{name}.npz").exists():
                with np.load(path) as saved:
                    models[name] = UNKEYED(saved["coef_"]) + UNKEYED(saved["intercept_"])
        told = {name: path.read_text() for name, path in logs.items()}
        return Outcome(codes, told, models, lines[-1] if lines else {})


@click.command()
@click.option(
    "--numpy", "versions", multiple=True, help="Another version of NumPy to install and to compare."
)
@click.option("--here", is_flag=True, help="Only print the digests of this machine as JSON.")
@click.option("--arithmetic", default="reproducible", type=click.Choice(("reproducible", "fast")))
def main(versions: tuple[str, ...], here: bool, arithmetic: str) -> None:
    """Compare all machines that this one can simulate."""
    if here:
        click.echo(json.dumps(digests(arithmetic)))
        return
    for name, value in describe().items():
        click.echo(f"{name}: {value}")
    with tempfile.TemporaryDirectory() as folder:
        machines = [*MACHINES, *(with_numpy(v, Path(folder) / v) for v in versions)]
        expected = digests_on(machines[0], arithmetic)
        wrong = 0
        for machine in machines[1:]:
            found = digests_on(machine, arithmetic)
            differing = [name for name in expected if found[name] != expected[name]]
            wrong += len(differing)
            click.echo(f"{machine.name}: {len(expected) - len(differing)} of {len(expected)} cases the same")
            for name in differing:
                click.echo(f"  differs: {name}")
        for coupling in COUPLINGS if arithmetic == "reproducible" else ():
            if coupling == "graph":
                continue
            options = [
                "--workers=3",
                "--rounds=8",
                f"--coupling={coupling}",
            ]
            outcome = run_on(machines[-1], machines[1:4], options)
            same = len(set(outcome.models.values())) == 1 and len(outcome.models) == 3
            wrong += not same
            click.echo(f"run with {coupling}: {'the same models' if same else outcome}")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
