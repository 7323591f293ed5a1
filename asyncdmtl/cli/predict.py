"""`asyncdmtl predict`: a prediction for every row of a table, by a saved model."""

from __future__ import annotations

import csv
import gzip
import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.elementary import expit
from asyncdmtl.arrays import Floats
from asyncdmtl.cli.command import command
from asyncdmtl.cli.data_options import names_option, reading_options
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.data.columns import is_missing, label_of, to_text
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.data.loading import names_of, reading_of
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.onnx_models import UNKNOWN
from asyncdmtl.data.readers import Wanted
from asyncdmtl.data.reading import Reading, normalised
from asyncdmtl.data.table import Table
from asyncdmtl.data.tables import read_table
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.losses import LOSSES, check_targets, predictions_of
from asyncdmtl.learning.metrics import metrics_for
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.report.console import make_console
from asyncdmtl.report.evaluation import compare
from asyncdmtl.report.json_output import emit
from asyncdmtl.report.metric_tables import show_metrics
from asyncdmtl.report.units import counted

# The name of the column of predictions.
PREDICTION = "prediction"

# Endings of the files that predictions can be written to.
ENDINGS = (".csv", ".csv.gz", ".parquet")


@command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True)
@click.option("--task", show_default="that of training", help="The column that names the task of each row.")
@click.option("--target", show_default="that of training", help="The column to compare with, for --score.")
@names_option("--keep", metavar="COL,COL", help="Columns to write beside the predictions, such as a name.")
@click.option("--proba", is_flag=True, help="Write the probability of each class too; for logistic loss.")
@click.option(
    "--unknown",
    type=click.Choice(UNKNOWN),
    default="error",
    help="What to do with a row without a task, or with a task that the model was not trained on: fail, "
    "predict with the mean of all tasks' models, or leave the prediction empty.",
)
@reading_options
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
    keep: str | tuple[str, ...] | None,
    proba: bool,
    unknown: str,
    score: bool,
    output: Path | None,
    format: str,
    **given: Any,
) -> None:
    """Predict every row of FILES with the MODEL that --save wrote.

    FILES are .csv, .tsv, .parquet, .npz and the like; - is CSV on stdin. If the model has a single task,
    they may lack the column of tasks.

    Writes one row for each row read, in the same order: task, kept columns, and the prediction, which is a
    class as it was called in training, or a number. Missing values and new categories are treated as in
    training.

    Metrics of --score are printed on stderr if predictions are printed on stdout. Exit codes: 0 done,
    1 failed, 2 usage.
    """
    _check_ending(output)
    check_outputs({"--output": output})
    saved = SavedModel.load(model)
    kept = list(map(normalised, names_of(keep or ())))
    predictor = Predictor(saved, unknown, reading_of(given))
    goal = normalised(target or saved.encoding.target or "y")
    table = predictor.read(files, task or saved.task_column, kept, goal if score else None)
    scores = predictor.scores(table)
    columns = _output(task or saved.task_column, table, kept, predictor.predictions(scores, proba))
    metrics = predictor.metrics(table, scores, goal) if score else None
    if output is not None:
        _write(columns, output)
    _print(columns, metrics, output, format)


class Predictor:
    """Applies a saved model to tables.

    Parameters
    ----------
    saved : SavedModel
    unknown : str
        One of `UNKNOWN`: what to do with rows without a task, or of tasks without a model.
    reading : Reading
        The options by which cells of files are read.
    """

    def __init__(self, saved: SavedModel, unknown: str = "error", reading: Reading | None = None) -> None:
        self.models, self.unknown, self.reading = saved.models, unknown, reading or Reading()
        self._known = frozenset(saved.models.tasks)
        self.encoding = saved.encoding if not saved.encoding.is_empty else _of_numbers(saved.features)

    def read(
        self, files: Sequence[str], task: str, kept: Sequence[str] = (), target: str | None = None
    ) -> Table:
        """Read files: the columns that the model needs, those to keep as text, and the target.

        Raises
        ------
        DataError
            A file cannot be read or lacks a column.
        """
        others = [*kept, *([target] if target is not None else [])]
        extra = [name for name in dict.fromkeys(others) if name not in self.encoding.sources]
        features = [*self.encoding.sources, *extra]
        known = {
            column.name: column.values
            for column in self.encoding.columns
            if isinstance(column, CategoryColumn)
        }
        verbatim = set(kept) - {target}
        # With a single model, a file need not say whose model to use.
        only = next(iter(self._known)) if len(self._known) == 1 else None
        wanted = Wanted(normalised(task), target, features, known=known, verbatim=verbatim, key_value=only)
        return read_table(files, wanted, features, self.reading)

    def scores(self, table: Table) -> Floats:
        """`x·w_t + b_t` of each row: (rows,) float64; NaN for an unknown task that is left empty.

        Raises
        ------
        DataError
            A task has no model and `unknown` is "error", or the encoding does not suit a column's values.
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
                raise DataError(f"task of row {rows[0] + 1}", rule, task or None)
            elif self.unknown == "mean":
                scores[rows] = self._mean.decision_function(X[rows], "mean")
        return scores

    def predictions(self, scores: Floats, proba: bool = False) -> dict[str, NDArray[Any]]:
        """Columns (rows,) to write: `prediction` and, if asked for, `probability_CLASS` for both classes.

        Raises
        ------
        UsageError
            `proba` is set, but the loss has no probabilities.
        """
        if proba and self.models.loss != "logistic":
            raise UsageError("--proba", "needs a model of logistic loss", self.models.loss)
        if not LOSSES[self.models.loss].classification:
            return {PREDICTION: predictions_of(self.models.loss, scores + self.encoding.offset)}
        names = self.encoding.classes or ("0", "1")
        labels = np.array([*map(label_of, names), None], dtype=object)
        chosen = np.where(np.isnan(scores), 2, scores > 0.0)
        columns: dict[str, NDArray[Any]] = {PREDICTION: labels[chosen]}
        if proba:
            with np.errstate(invalid="ignore"):  # NumPy warns of empty predictions
                for name, sign in zip(names, (1.0, -1.0), strict=True):
                    columns[f"probability_{name}"] = expit(-sign * scores)
        return columns

    def metrics(self, table: Table, scores: Floats, target: str) -> dict[str, Any]:
        """Metrics of scores over the rows that have a target, as `evaluation.compare` makes them.

        Raises
        ------
        DataError
            A target is none of the classes, or no number that suits the loss.
        """
        known = ~is_missing(table.columns[target]) & ~np.isnan(scores)
        y = np.full(table.rows, math.nan)
        y[known] = self.encoding.encode_target(table.columns[target][known])
        check_targets(self.models.loss, y[known], f"column {target!r}")
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
    """The encoding for a model trained on numbers: columns stay as they are, missing values are refused."""
    return Encoding(tuple(NumberColumn(name, math.nan, 0.0, 1.0) for name in features), {}, "", None)


def _output(
    task: str, table: Table, kept: Sequence[str], predicted: Mapping[str, NDArray[Any]]
) -> dict[str, list[Any]]:
    """The columns to write, as plain values; None for a missing value."""
    if PREDICTION in (task, *kept):
        # A kept column of the table may be called "prediction", too: it keeps its name.
        predicted = {f"model_{name}" if name == PREDICTION else name: c for name, c in predicted.items()}
    names = [task, *kept, *predicted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError("--keep", f"must be none of {task}, {', '.join(predicted)}, and each once", twice)
    read = {task: table.tasks} | {name: table.columns[name] for name in kept}
    columns = {name: list(_as_read(to_text(column).tolist())) for name, column in read.items()}
    for name, column in predicted.items():
        # NaN is the only value that does not equal itself.
        columns[name] = [None if value != value else value for value in column.tolist()]
    return columns


def _as_read(texts: Sequence[str | None]) -> Sequence[Any]:
    """A column that was read as text, as numbers if every value of it is one."""
    values = [text if text is None else label_of(text) for text in texts]
    return texts if any(isinstance(value, str) for value in values) else values


def _check_ending(path: Path | None) -> None:
    if path is not None and not path.name.lower().endswith(ENDINGS):
        raise UsageError("--output", f"must end in one of {', '.join(ENDINGS)}", str(path))


def _write(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    try:
        if path.name.lower().endswith(".parquet"):
            import pyarrow
            from pyarrow.parquet import write_table

            write_table(pyarrow.table(dict(columns)), path)
        else:
            packed = path.name.lower().endswith(".gz")
            with (gzip.open(path, "wt", encoding="utf-8", newline="") if packed
                  else path.open("w", encoding="utf-8", newline="")) as file:  # fmt: skip
                _write_csv(columns, file)
    except ImportError as error:
        rule = "is Parquet, which needs: pip install 'asyncdmtl[parquet]'"
        raise UsageError("--output", rule, str(path)) from error
    except OSError as error:
        raise UsageError("--output", f"must be writable ({error.strerror or error})", str(path)) from error


def _write_csv(columns: Mapping[str, Sequence[Any]], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _print_csv(columns: Mapping[str, Sequence[Any]]) -> None:
    """Print predictions as CSV; UsageError if the encoding of stdout lacks one of the characters."""
    buffer = io.StringIO()
    _write_csv(columns, buffer)
    text, encoding = buffer.getvalue(), sys.stdout.encoding
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        rule = f"must name a file: stdout is {encoding}, which has no"
        raise UsageError("--output", rule, text[error.start]) from error
    sys.stdout.write(text)


def _print(
    columns: Mapping[str, Sequence[Any]], metrics: dict[str, Any] | None, output: Path | None, format: str
) -> None:
    """Print predictions unless they are in a file, and metrics."""
    rows = list(zip(*columns.values(), strict=True))
    if format == "json":
        event = {"event": "finished", "rows": len(rows), "output": None, "predictions": None}
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        found = {"predictions": records} if output is None else {"output": str(output)}
        emit({**event, **found, "metrics": metrics})
        return
    if output is None:
        _print_csv(columns)
    else:
        click.echo(f"{counted(len(rows), 'prediction')} in {output}")
    if metrics is not None:
        show_metrics(metrics, make_console(stderr=output is None))
