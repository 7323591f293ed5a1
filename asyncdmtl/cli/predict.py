"""`asyncdmtl predict`: a prediction for every row of a table, by a saved model."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.cli.command import command
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.data.columns import as_text, is_missing
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import NumberColumn
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.tables import Table, read_table
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.metrics import metrics_for
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.report.console import make_console
from asyncdmtl.report.evaluation import compare
from asyncdmtl.report.json_output import emit
from asyncdmtl.report.metric_tables import show_metrics

if TYPE_CHECKING:
    from pandas import DataFrame


# The column of the predictions.
PREDICTION = "prediction"

# Endings of the files that predictions can be written to.
ENDINGS = (".csv", ".csv.gz", ".parquet")

# What can be done with the rows of a task without a model.
UNKNOWN = ("error", "mean", "empty")


@command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True)
@click.option("--task", show_default="that of training", help="The column that names the task of each row.")
@click.option("--target", show_default="that of training", help="The column to compare with, for --score.")
@click.option("--keep", metavar="COL,COL", help="Columns to write beside the predictions, such as a name.")
@click.option("--proba", is_flag=True, help="Write the probability of each class too; for logistic loss.")
@click.option(
    "--unknown",
    type=click.Choice(UNKNOWN),
    default="error",
    help="What to do with a task that the model was not trained on: fail, predict with the mean of all "
    "tasks' models, or leave the prediction empty.",
)
@click.option("--score", is_flag=True, help="Compare with the target, and print metrics per task.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    show_default="stdout",
    help=f"Write the predictions here: {', '.join(ENDINGS)}.",
)
def main(
    model: Path,
    files: tuple[str, ...],
    task: str | None,
    target: str | None,
    keep: str | None,
    proba: bool,
    unknown: str,
    score: bool,
    output: Path | None,
    format: str,
    **_: object,
) -> None:
    """Predict every row of FILES (.csv, .tsv, .parquet, .npz) with the MODEL that --save wrote.

    Writes one row for each row read, in the same order: task, kept columns, and the prediction, which is a
    class as it was called in training, or a number. Missing values and new categories are treated as in
    training.

    Metrics of --score are printed on stderr if predictions are printed on stdout. Exit codes: 0 done,
    1 failed, 2 usage.
    """
    _check_ending(output)
    check_outputs({"--output": output})
    saved = SavedModel.load(model)
    kept = [name.strip() for name in (keep or "").split(",") if name.strip()]
    predictor = Predictor(saved, unknown)
    goal = target or saved.encoding.target or "y"
    table = predictor.read(files, task or saved.task_column, [*kept, *([goal] if score else [])])
    scores = predictor.scores(table)
    frame = _frame(task or saved.task_column, table, kept, predictor.predictions(scores, proba))
    metrics = predictor.metrics(table, scores, goal) if score else None
    if output is not None:
        _write(frame, output)
    _print(frame, metrics, output, format)


class Predictor:
    """Applies a saved model to tables.

    Parameters
    ----------
    saved : SavedModel
    unknown : str
        One of `UNKNOWN`: what to do with rows of tasks without a model.
    """

    def __init__(self, saved: SavedModel, unknown: str = "error") -> None:
        self.models, self.unknown = saved.models, unknown
        self._known = frozenset(saved.models.tasks)
        self.encoding = saved.encoding if not saved.encoding.is_empty else _of_numbers(saved.features)

    def read(self, files: Sequence[str], task: str, others: Sequence[str] = ()) -> Table:
        """The rows of some files: what the model needs, and other columns, as text.

        Raises
        ------
        DataError
            A file cannot be read or lacks a column, or a row has no task.
        """
        extra = [name for name in dict.fromkeys(others) if name not in self.encoding.sources]
        features = [*self.encoding.sources, *extra]
        return read_table(files, task=task, features=features, text={*self.encoding.categories, *others})

    def scores(self, table: Table) -> Floats:
        """`x·w_t + b_t` of each row: (rows,) float64; NaN for an unknown task that is left empty.

        Raises
        ------
        DataError
            An unknown task that is not allowed, or values that the encoding is not for.
        """
        X = self.encoding.encode_rows(table.columns)
        if (bad := np.argwhere(np.isnan(X))).size:
            row, column = (int(i) for i in bad[0])
            rule = "must have a value in every row (the model was trained on numbers, all there); not so row"
            raise DataError(f"column {self.encoding.features[column]!r}", rule, row + 1)
        scores = np.full(table.rows, math.nan)
        for task, rows in table.of_tasks().items():
            if task in self._known:
                scores[rows] = self.models.decision_function(X[rows], task)
            elif self.unknown == "error":
                rule = f"must be one of the {len(self._known)} tasks of the model (see --unknown)"
                raise DataError(f"task of row {rows[0] + 1}", rule, task)
            elif self.unknown == "mean":
                scores[rows] = self._mean.decision_function(X[rows], "mean")
        return scores

    def predictions(self, scores: Floats, proba: bool = False) -> dict[str, NDArray[Any]]:
        """Columns (rows,) to write: `prediction` and, if asked for, `probability_CLASS` for both classes.

        Raises
        ------
        UsageError
            Probabilities under a loss that has none.
        """
        if proba and self.models.loss != "logistic":
            raise UsageError("--proba", "needs a model of logistic loss", self.models.loss)
        if not LOSSES[self.models.loss].classification:
            return {PREDICTION: scores + self.encoding.offset}
        names = self.encoding.classes or ("0", "1")
        labels = np.array([*map(_label, names), None], dtype=object)
        chosen = np.where(np.isnan(scores), 2, scores > 0.0)
        columns: dict[str, NDArray[Any]] = {PREDICTION: labels[chosen]}
        if proba:
            with np.errstate(invalid="ignore"):  # NumPy warns of empty predictions
                for name, sign in zip(names, (1.0, -1.0), strict=True):
                    columns[f"probability_{name}"] = np.exp(-np.logaddexp(0.0, sign * scores))
        return columns

    def metrics(self, table: Table, scores: Floats, target: str) -> dict[str, Any]:
        """Metrics of scores over the rows that have a target, as `evaluation.compare` makes them.

        Raises
        ------
        DataError
            A target that is none of the classes, or no number.
        """
        known = ~is_missing(table.columns[target]) & ~np.isnan(scores)
        y = np.full(table.rows, math.nan)
        y[known] = self.encoding.encode_target(table.columns[target][known])
        of_tasks = {task: rows[known[rows]] for task, rows in table.of_tasks().items()}
        decided = {task: (y[rows], scores[rows]) for task, rows in of_tasks.items() if len(rows)}
        return compare({"coupled": decided}, self.models.loss, metrics_for(self.models.loss)[0])

    @property
    def _mean(self) -> TaskModels:
        """The mean of all tasks' models, as the model of a task called "mean"."""
        coef, intercept = (
            part.astype(np.float64).mean(axis=0) for part in (self.models.coef_, self.models.intercept_)
        )
        return TaskModels(("mean",), coef[None], np.array([intercept]), self.models.loss)


def _of_numbers(features: Sequence[str]) -> Encoding:
    """The encoding of a model without one: columns of numbers as they are, none missing."""
    return Encoding(tuple(NumberColumn(name, math.nan, 0.0, 1.0) for name in features), {}, "", None)


def _label(name: str | None) -> Any:
    """A class or value as it was in the data: a number if its text is that of the number."""
    try:
        number = float(name or "")
    except ValueError:
        return name
    if not math.isfinite(number) or as_text(number) != name:
        return name
    return int(number) if number.is_integer() else number


def _frame(task: str, table: Table, kept: Sequence[str], predicted: Mapping[str, NDArray[Any]]) -> DataFrame:
    # Here and not above: pandas takes a second to import, which --help shall not.
    from pandas import DataFrame

    names = [task, *kept, *predicted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError("--keep", f"must be none of {task}, {', '.join(predicted)}, and each once", twice)
    read = {task: table.tasks} | {name: table.columns[name] for name in kept}
    return DataFrame({name: _as_read(column.tolist()) for name, column in read.items()} | dict(predicted))


def _as_read(texts: Sequence[str | None]) -> Sequence[Any]:
    """A column that was read as text, as numbers if every value of it is one."""
    values = [_label(text) for text in texts]
    return texts if any(isinstance(value, str) for value in values) else values


def _check_ending(path: Path | None) -> None:
    if path is not None and not path.name.lower().endswith(ENDINGS):
        raise UsageError("--output", f"must end in one of {', '.join(ENDINGS)}", str(path))


def _write(frame: DataFrame, path: Path) -> None:
    try:
        if path.name.lower().endswith(".parquet"):
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False)
    except ImportError as error:
        rule = "is Parquet, which needs: pip install 'asyncdmtl[parquet]'"
        raise UsageError("--output", rule, str(path)) from error
    except OSError as error:
        raise UsageError("--output", f"must be writable ({error.strerror or error})", str(path)) from error


def _print_csv(frame: DataFrame) -> None:
    """Print predictions as CSV; UsageError if the encoding of stdout lacks one of the characters."""
    text, encoding = frame.to_csv(index=False), sys.stdout.encoding
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        rule = f"must name a file: stdout is {encoding}, which has no"
        raise UsageError("--output", rule, text[error.start]) from error
    sys.stdout.write(text)


def _print(frame: DataFrame, metrics: dict[str, Any] | None, output: Path | None, format: str) -> None:
    """Print predictions unless they are in a file, and metrics."""
    if format == "json":
        event = {"event": "finished", "rows": len(frame), "output": None, "predictions": None}
        found = {"predictions": frame.to_dict("records")} if output is None else {"output": str(output)}
        emit({**event, **found, "metrics": metrics})
        return
    if output is None:
        _print_csv(frame)
    else:
        click.echo(f"{len(frame)} predictions in {output}")
    if metrics is not None:
        show_metrics(metrics, make_console(stderr=output is None))
