"""Measure rounds, bytes and seconds to the optimum for each kind of update, on real sockets.

    python tools/bench_rounds.py [--data FILE --task COL --target COL] [--json FILE]

Without --data, the data are synthetic regressions, and logistic tasks with few positive labels. Before a
figure counts, the objective at the models of a run is compared with that of another solver: SciPy's L-BFGS,
for the penalty "mean-regularised", which is smooth. Bytes are those of the ledger.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from asyncdmtl.arrays import Floats
from asyncdmtl.data import loading
from asyncdmtl.launch.threads import run_in_threads
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, whole_tasks
from asyncdmtl.plan.placement import Placement, natural_key
from asyncdmtl.report.evaluation import objective
from asyncdmtl.server.records import RunOptions

WORKERS, COPIES = 5, 3

# The largest relative excess of an objective over that of the other solver.
AGREE = 1e-6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "task", "target", "omit"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    sets = {"squared": squared_tasks(), "logistic": rare_labels()} if given["data"] is None else table(given)
    figures, wrong = [], 0
    print(f"{'set':10} {'coupling':17} {'update':13} {'rounds':>6} {'MB':>8} {'seconds':>8} {'excess':>9}")
    for name, (partitions, loss) in sets.items():
        for update, coupling, strength in cases(loss):
            figure = measure(partitions, loss, update, coupling, strength)
            wrong += figure["excess"] is not None and figure["excess"] > AGREE
            figures.append({"set": name, **figure})
            excess = "-" if figure["excess"] is None else f"{figure['excess']:.1e}"
            print(
                f"{name:10} {figure['coupling']:17} {update:13} {figure['rounds']:6} "
                f"{figure['bytes'] / 1e6:8.2f} {figure['seconds']:8.2f} {excess:>9}",
                flush=True,
            )
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def cases(loss: str) -> list[tuple[str, str, float | None]]:
    """The cases: update, coupling and λ, or None if the run chooses λ."""
    if loss == "squared":
        return [
            ("statistics", "auto", None),
            ("statistics", "mean-regularised", 0.1),
            ("quasi-newton", "mean-regularised", 0.1),
            ("gradient", "mean-regularised", 0.1),
        ]
    return [(update, "mean-regularised", 0.03) for update in ("newton", "quasi-newton", "gradient")]


def measure(
    partitions: Sequence[Partition], loss: str, update: str, coupling: str, strength: float | None
) -> dict[str, Any]:
    """One run on sockets, and the relative excess of its objective over that of another solver."""
    settings = Settings(
        loss=loss, coupling=coupling, strength=strength, rounds=5000, tolerance=1e-8, dtype="float64",
        update=update,
    )  # fmt: skip
    placement = Placement.cyclic(WORKERS, len(partitions), COPIES)
    stored = {
        worker: [partitions[n] for n in held]
        for worker, held in zip(placement.workers, placement.stored, strict=True)
    }
    began = time.perf_counter()
    record, models = run_in_threads(RunOptions(settings, "relay", WORKERS), stored)
    seconds = time.perf_counter() - began
    settled = replace(record.settings, update="gradient")
    value = objective(partitions, models, settled)
    least = reference(partitions, settled) if settled.coupling == "mean-regularised" else None
    return {
        "update": update,
        "coupling": settled.coupling,
        "strength": settled.strength,
        "rounds": len(record.rounds),
        "bytes": sum(record.ledger.total(lambda _: True)),
        "seconds": seconds,
        "objective": value,
        "gap": None if record.outcome is None else record.outcome.gap / abs(value),
        "excess": None if least is None else (value - least) / abs(least),
    }


def reference(partitions: Sequence[Partition], settings: Settings) -> float:
    """The minimum of the objective of "mean-regularised" with free intercepts, by SciPy's L-BFGS."""
    tasks = whole_tasks(partitions)
    whole = [tasks[name] for name in sorted(tasks, key=natural_key)]
    T, F = len(whole), whole[0].features
    loss, strength = LOSSES[settings.loss], settings.strength or 0.0

    def value(flat: Floats) -> tuple[float, Floats]:
        W = flat.reshape(T, F + 1)
        total, gradient = 0.0, np.zeros_like(W)
        for t, rows in enumerate(whole):
            values, slopes = loss.value_and_derivative(rows.X @ W[t, :F] + W[t, F], rows.y)
            total += float(values.mean())
            gradient[t, :F], gradient[t, F] = slopes @ rows.X / rows.rows, slopes.mean()
        offsets = W[:, :F] - W[:, :F].mean(axis=0)
        gradient[:, :F] += strength * offsets
        return total + 0.5 * strength * float((offsets**2).sum()), gradient.reshape(-1)

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    return float(minimize(value, np.zeros(T * (F + 1)), jac=True, method="L-BFGS-B", options=options).fun)


def table(given: dict[str, Any]) -> dict[str, tuple[list[Partition], str]]:
    """The partitions of a table, as `asyncdmtl run` cuts and encodes it."""
    blank = dict.fromkeys(("features", "weight"))
    loaded = loading.load({**blank, **given, "seed": 0, "parts": 2, "test_fraction": 0.2})
    loss = loaded.defaults["loss"]
    settings = Settings(loss=loss, coupling="none", strength=0.0, rounds=1, standardise=True)
    return {"table": (list(loaded.prepared(settings).partitions), loss)}


def squared_tasks(tasks: int = 40, rows: int = 60, features: int = 30) -> tuple[list[Partition], str]:
    """Regression tasks whose models are near one another."""
    rng = np.random.default_rng(0)
    shared, made = rng.normal(size=features), []
    for t in range(tasks):
        X = rng.normal(size=(rows, features))
        y = X @ (shared + 0.3 * rng.normal(size=features)) + t + rng.normal(size=rows)
        made += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return made, "squared"


def rare_labels(tasks: int = 29, features: int = 9) -> tuple[list[Partition], str]:
    """Tasks of 50 to 400 rows, some 6 % of them positive, at least one in each task."""
    rng = np.random.default_rng(0)
    shared, made = 0.6 * rng.normal(size=features), []
    for t in range(tasks):
        rows = int(rng.integers(50, 400))
        X = rng.normal(size=(rows, features))
        scores = X @ (shared + 0.3 * rng.normal(size=features)) - 4.0
        y = (scores + rng.logistic(size=rows) > 0.0).astype(np.float64)
        y[np.argmax(scores)] = 1.0
        made += [Partition(f"p{2 * t + i}", f"t{t}", X[i::2], y[i::2]) for i in range(2)]
    return made, "logistic"


if __name__ == "__main__":
    sys.exit(main())
