"""`asyncdmtl show`: the coefficients of a saved model, in the units of the columns that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from asyncdmtl.arrays import Floats
from asyncdmtl.cli.command import command
from asyncdmtl.cli.data_options import names_option
from asyncdmtl.data.coefficients import INTERCEPT, in_original_units
from asyncdmtl.data.loading import names_of
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.report.console import FittedTable, make_console
from asyncdmtl.report.json_output import emit

# The most tasks that have a column each. Of more, the table has the mean and the range over tasks.
MOST_COLUMNS = 6


@command("show")
@click.argument("model", type=click.Path(path_type=Path))
@names_option("--only", metavar="TASK,TASK", help="Show these tasks only.")
def main(model: Path, only: str | tuple[str, ...] | None, format: str, **_: Any) -> None:
    """Show the coefficients of the MODEL that --save wrote, for each task.

    Coefficients are those of the columns as they stand in the data, whether or not training scaled them: a
    prediction is the intercept plus the sum of coefficients times values. A column of text has a coefficient
    for each value (of two values, for the second); a score above 0 predicts the second class. Of more than
    six tasks the table shows the mean and the range; --format json has all. Exit codes: 0 done, 1 failed,
    2 usage.
    """
    saved = SavedModel.load(model)
    coef, intercept = in_original_units(saved.models, saved.encoding)
    tasks = list(saved.models.tasks)
    chosen = list(names_of(only or ())) or tasks
    if unknown := [task for task in chosen if task not in tasks]:
        raise UsageError("--only", f"must be of the {len(tasks)} tasks of the model", unknown[0])
    rows = [tasks.index(task) for task in chosen]
    if format == "json":
        emit(_content(saved, chosen, coef[rows], intercept[rows]))
    else:
        _show(saved, chosen, coef[rows], intercept[rows], make_console())


def _content(saved: SavedModel, tasks: list[str], coef: Floats, intercept: Floats) -> dict[str, Any]:
    settings, encoding = saved.settings, saved.encoding
    return {
        "loss": saved.models.loss,
        "coupling": None if settings is None else settings.coupling,
        "strength": None if settings is None else settings.strength,
        "target": encoding.target or None,
        "classes": None if encoding.classes is None else list(encoding.classes),
        "tasks": {
            task: {
                "intercept": float(b),
                "coefficients": dict(zip(saved.features, map(float, w), strict=True)),
            }
            for task, w, b in zip(tasks, coef, intercept, strict=True)
        },
    }


def _show(saved: SavedModel, tasks: list[str], coef: Floats, intercept: Floats, console: Console) -> None:
    settings, encoding = saved.settings, saved.encoding
    coupling = "" if settings is None else f", coupling {settings.coupling}, λ = {settings.strength:.4g}"
    target = f"; predicts {encoding.target}" if encoding.target else ""
    if LOSSES[saved.models.loss].classification:
        first, second = encoding.classes or ("0", "1")
        target += f": {second} rather than {first} if the sum is above 0"
    if LOSSES[saved.models.loss].counts:
        target += ": e to the power of the sum" if target else "; predicts e to the power of the sum"
    console.print(f"Loss {saved.models.loss}{coupling}{target}.")
    table = FittedTable(title="Coefficients in the units of the data")
    table.add_column("", overflow="fold")
    every = np.column_stack([intercept, coef])
    if len(tasks) <= MOST_COLUMNS:
        headings, numbers = tasks, every
    else:
        headings = ["mean of tasks", "smallest", "largest"]
        numbers = np.stack([every.mean(axis=0), every.min(axis=0), every.max(axis=0)])
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for name, values in zip((INTERCEPT, *saved.features), numbers.T, strict=True):
        table.add_row(name, *(f"{value:.4g}" for value in values))
    console.print(table)
    if len(tasks) > MOST_COLUMNS:
        console.print(f"{len(tasks)} tasks; --only TASK shows one, --format json has all.")
