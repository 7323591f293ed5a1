"""Compare couplings on a table: the test metric of every coupling over many splits and strengths.

python tools/compare_couplings.py FILE --task COL --target COL [--splits 10] [--test-fraction 0.25]

For every coupling, the strength whose metric is best on average over the splits is shown, beside its value:
this is usual in the literature, and a little optimistic, since the strength is chosen by the test rows.
Columns are standardised over the training rows, and the intercept is penalised as an ordinary column.

Means have their standard error over the splits. Most of this error is common to all couplings, as some splits
have rows that no model predicts well. So each split is also compared with one model for all tasks (pooled
ridge) on the same rows, which involves no coupling; this difference can be compared with figures from other
splits. (Splits overlap, so that the errors are a little too small.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import click
import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data import loading
from asyncdmtl.learning.baseline import pooled, single_task
from asyncdmtl.learning.metrics import METRICS, metrics_for, score
from asyncdmtl.learning.selection import critical_strength
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train

COUPLINGS = ("l21", "nuclear", "covariance", "mean-regularised")
TOLERANCE = 1e-5


def split(given: Mapping[str, object], seed: int) -> tuple[loading.Prepared, Settings]:
    """Rows of one split, encoded, and settings for them."""
    loaded = loading.load({**given, "seed": seed})
    settings = Settings(
        loss=loaded.defaults["loss"], coupling="none", strength=0.0, rounds=5000, tolerance=TOLERANCE,
        intercept="penalised", standardise=True, dtype="float64", seed=seed,
    )  # fmt: skip
    return loaded.prepared(settings), settings


def strengths_for(prepared: loading.Prepared, settings: Settings, coupling: str, count: int) -> list[float]:
    """A path of strengths, the same for all splits."""
    first = critical_strength(prepared.partitions, Settings(**{**vars(settings), "coupling": coupling}))
    decades = 4.0 if coupling in ("covariance", "mean-regularised") else 2.0
    return [float(first * 10 ** (-decades * i / (count - 1))) for i in range(count)]


@click.command()
@click.argument("file")
@click.option("--task", required=True)
@click.option("--target", required=True)
@click.option("--features")
@click.option("--splits", default=10, show_default=True)
@click.option("--first", default=0, show_default=True, help="The seed of the first split.")
@click.option("--strengths", "count", default=13, show_default=True)
@click.option("--test-fraction", default=0.25, show_default=True)
def main(
    file: str,
    task: str,
    target: str,
    features: str | None,
    splits: int,
    first: int,
    count: int,
    test_fraction: float,
) -> None:
    """Print the test metric of all rows together, by coupling, averaged over the splits."""
    given = {
        "data": file, "task": task, "target": target, "features": features, "weight": None, "parts": 1,
        "test_fraction": test_fraction,
    }  # fmt: skip
    made = [split(given, seed) for seed in range(first, first + splits)]
    metric = metrics_for(made[0][1].loss)[0]
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    print(f"{metric} of all test rows, mean of {splits} splits (± standard error), and share of one model's")

    def value(models: TaskModels, prepared: loading.Prepared) -> float:
        return score(models, prepared.test, metric).all_rows

    alone, one = (
        np.array([value(fit(prepared.partitions, settings.loss), prepared) for prepared, settings in made])
        for fit in (single_task, pooled)
    )

    def show(name: str, values: Floats, note: str = "") -> None:
        shares = values / one
        print(
            f"{name:18}{values.mean():10.4f} ± {error(values):.4f} {shares.mean():10.4f} ± "
            f"{error(shares):.4f}   {note}".rstrip(),
            flush=True,
        )

    show("single-task", alone)
    show("pooled", one)
    for coupling in COUPLINGS:
        path = strengths_for(*made[0], coupling, count)
        values = np.empty((splits, count))
        for s, (prepared, settings) in enumerate(made):
            start = None
            for i, strength in enumerate(path):
                own = Settings(**{**vars(settings), "coupling": coupling, "strength": strength})
                start = train(prepared.partitions, own, start=start).models
                values[s, i] = value(start, prepared)
        best = int(np.argmax(sign * values.mean(axis=0)))
        show(coupling, values[:, best], f"λ = {path[best]:.4g}")


def error(values: Floats) -> float:
    """The standard error of the mean of some values."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


if __name__ == "__main__":
    main()
