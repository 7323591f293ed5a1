"""Compare coupled training with training each task alone, on the shipped data sets over many seeds.

python tools/compare_learning.py [--seeds FIRST LAST] [DATA …]
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from asyncdmtl.data import recipes
from asyncdmtl.data.loading import recipe_defaults
from asyncdmtl.learning.baseline import single_task
from asyncdmtl.learning.metrics import METRICS, score
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train

# Rounds of a training: enough that models no longer depend on the number.
LONG = 1500
COLUMNS = ("alone, CV", "alone, logistic CV", "no coupling", "coupling", f"none, {LONG}", f"coupling, {LONG}")


def scores(spec: str, seed: int) -> list[float]:
    """The mean test metric of each way to train, in the order of the columns."""
    dataset = recipes.load(spec, seed=seed)

    def trained(**changes: object) -> TaskModels:
        options: dict[str, Any] = {**recipe_defaults(dataset), "seed": seed, **changes}
        return train(dataset.partitions, Settings(**options)).models

    classification = dataset.metric == "ROC AUC"
    ways = (
        single_task(dataset.partitions, dataset.loss, intercept=dataset.intercept),
        single_task(dataset.partitions, "logistic", intercept=True) if classification else None,
        trained(coupling="none"),
        trained(),
        trained(coupling="none", rounds=LONG),
        trained(rounds=LONG),
    )
    return [score(models, dataset.test, dataset.metric).mean if models else np.nan for models in ways]


@click.command()
@click.argument("specs", nargs=-1, metavar="[DATA]…")
@click.option("--seeds", nargs=2, type=int, default=(200, 219), show_default=True)
def main(specs: tuple[str, ...], seeds: tuple[int, int]) -> None:
    """Print mean metrics over the seeds, and the share of seeds in which coupling is better."""
    print(f"{'':14}" + "".join(f"{name:>20}" for name in COLUMNS) + f"{'better than alone':>20}")
    for spec in specs or ("digits", "digit-pairs"):
        table = np.array([scores(spec, seed) for seed in range(seeds[0], seeds[1] + 1)])
        metric = METRICS[recipes.load(spec, seed=0, only=(), test=False).metric]
        sign = 1 if metric.higher_is_better else -1
        wins = int((sign * (table[:, 3] - table[:, 0]) > 0).sum())
        means = "".join(f"{value:20.4f}" for value in table.mean(axis=0))
        print(f"{spec:14}{means}{wins:>14} of {len(table)}")


if __name__ == "__main__":
    main()
