"""`asyncdmtl run`: a server and workers on this machine, and what came of it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from asyncdmtl.cli.command import command
from asyncdmtl.cli.options import as_options, data_options, downlink_options, make_settings, training_options
from asyncdmtl.cli.progress_bar import RunProgress
from asyncdmtl.data import loading
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.tables import TASK
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.launch.commands import LocalCluster
from asyncdmtl.learning.learners import check_learner
from asyncdmtl.learning.metrics import metrics_for
from asyncdmtl.learning.selection import select_strength
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.placement import Placement, natural_key
from asyncdmtl.report import run_report
from asyncdmtl.report.evaluation import evaluate, learning_curve
from asyncdmtl.report.json_output import emit
from asyncdmtl.report.pictures import check_picture
from asyncdmtl.report.pictures import plot as draw

DEFAULT_WORKERS, DEFAULT_COPIES = 5, 3

# How tables are cut where nothing is said.
OF_TABLES = {"test_fraction": 0.2, "parts": 2}

# Folds of the cross-validation that chooses λ, and rounds that a fit for it may take.
FOLDS, FIT_ROUNDS = 3, 1000

# Of these cross-validation chooses for tables where nothing is said: models near one small subspace, or near
# their mean. On nine of ten tables the one of less held-out loss had the better test score, in the mean of
# two splits.
TABLE_COUPLINGS = ("nuclear", "mean-regularised")


@command("run")
@data_options
@click.option("--workers", type=int, show_default=str(DEFAULT_WORKERS), help="Worker processes to start.")
@click.option(
    "--copies",
    type=int,
    show_default=str(DEFAULT_COPIES),
    help="Workers that store each partition, cyclically.",
)
@click.option(
    "--placement",
    type=click.Path(path_type=Path),
    help="TOML or JSON file that says who stores what; instead of --workers and --copies.",
)
@training_options
@downlink_options
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the report here as JSON."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw loads, objective and metric here."
)
@click.option("--save", type=click.Path(path_type=Path), help="Write the models of all tasks here (.npz).")
def main(
    workers: int | None,
    copies: int | None,
    placement: Path | None,
    report_file: Path | None,
    plot_file: Path | None,
    save: Path | None,
    format: str,
    **given: Any,
) -> None:
    """Train on this machine: one server and worker processes that talk over TCP.

    Prints test metrics beside single-task training, and measured traffic beside the lower bound and beside
    uncoded exchange. Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout,
    6 decoding or integrity, 130 interrupted, 143 terminated.
    """
    for path, option in ((report_file, "--report"), (plot_file, "--plot"), (save, "--save")):
        _check_output(path, option)
    check_picture(plot_file)
    if loading.is_table(given["data"]):
        given = given | {name: OF_TABLES[name] for name in OF_TABLES if given[name] is None}
    loaded = loading.load(given)
    chosen = _placement(loaded, workers, copies, placement)
    settings, prepared = _prepare(loaded, given)
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as folder:
        finished = _train(chosen, settings, given, Path(folder))
        saved = [Path(folder) / f"{k}.npz" for k in range(len(chosen.workers))]
        present = [file for file in saved if file.exists()]
        models, spread = _agreed_models(present, exact=given["strategy"] != "linear")
    made = finished["report"]
    made["models_spread"] = spread
    if prepared.test:
        metric = loaded.metric or metrics_for(settings.loss)[0]
        rows = prepared.partitions, prepared.test
        made["metrics"] = evaluate(*rows, models, settings, metric)
        # A replay of the whole training: only for those who will look at it.
        if report_file is not None or plot_file is not None:
            made["learning_curve"] = learning_curve(*rows, settings, metric, len(made["rounds"]))
    model = SavedModel(models, prepared.encoding, settings, loaded.task or TASK, made)
    if format == "json":
        emit({"event": "finished", "report": made})
    else:
        run_report.show(made)
    if save is not None:
        model.save(save)
    if report_file is not None:
        run_report.write(made, report_file)
    if plot_file is not None:
        draw(made, plot_file, model)


def _check_output(path: Path | None, option: str) -> None:
    """Find out before hours of training whether a result can be written where it should be."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise UsageError(option, "must be in a directory that exists", str(path))
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(option, "must be a writable file", str(path))


def _prepare(loaded: loading.Loaded, given: dict[str, Any]) -> tuple[Settings, loading.Prepared]:
    """The settings of the run and its rows as numbers.

    If nothing says what λ is, it is chosen by cross-validation, and so is the coupling of a table.
    """
    if given["strength"] is not None or "strength" in loaded.defaults:
        settings = make_settings(loaded.defaults, given)
        return settings, _encoded(loaded, settings)
    settings = make_settings({**loaded.defaults, "strength": 0.0}, given)
    prepared = _encoded(loaded, settings)
    if len(prepared.tasks) == sum(p.rows for p in prepared.partitions):
        rule = "must be given: with a single row to train on for each task, cross-validation cannot choose it"
        raise UsageError("--strength", rule, None)
    fits = replace(settings, rounds=min(settings.rounds, FIT_ROUNDS))
    open_ = loading.is_table(given["data"]) and given["coupling"] is None and len(prepared.tasks) > 1
    with RunProgress(None) as progress:
        selections = {
            coupling: select_strength(
                prepared.partitions,
                replace(fits, coupling=coupling),
                folds=FOLDS,
                on_strength=progress.note_strength,
            )
            for coupling in (TABLE_COUPLINGS if open_ else (settings.coupling,))
        }
    coupling, selection = min(selections.items(), key=lambda item: item[1].loss)
    if len(selection.strengths) > 1:
        chosen = (
            f"coupling {coupling}, λ = {selection.strength:.4g}" if open_ else f"λ = {selection.strength:.4g}"
        )
        click.echo(f"{chosen}, by cross-validation ({FOLDS} folds)", err=True)
    return replace(settings, coupling=coupling, strength=selection.strength), prepared


def _encoded(loaded: loading.Loaded, settings: Settings) -> loading.Prepared:
    # The server will pool the same surveys, and then warn of columns that are left out.
    with loading.unwarned():
        prepared = loaded.prepared(settings)
    if settings.learner:
        check_learner(prepared.partitions, settings)
    return prepared


def _placement(
    dataset: loading.Loaded, workers: int | None, copies: int | None, file: Path | None
) -> Placement:
    if file is None:
        workers = DEFAULT_WORKERS if workers is None else workers
        copies = min(DEFAULT_COPIES, workers) if copies is None else copies
        return Placement.cyclic(workers, len(dataset.ids), copies)
    if workers is not None or copies is not None:
        raise UsageError("--placement", "cannot be given with --workers or --copies", str(file))
    placement = Placement.read(file)
    if set(placement.partitions) != set(dataset.ids):
        missing = [name for name in dataset.ids if name not in placement.partitions]
        unknown = [name for name in placement.partitions if name not in dataset.ids]
        raise UsageError(
            f"--placement {file}",
            f"must store the partitions of {dataset.name}, {dataset.ids[0]} to {dataset.ids[-1]}",
            {"missing": missing, "unknown": unknown},
        )
    return placement


def _train(
    placement: Placement,
    settings: Settings,
    given: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Run server and workers to the end; the server's last event."""
    shared = _words(given, "log_level", "log_format", "log_file")
    rows = _words(
        given, "data", "task", "target", "features", "omit", "weight", "test_fraction", "parts", "seed"
    )
    heard = _words(given, "interface")
    server_options = [
        *shared, *as_options(settings, given), "--workers", str(len(placement.workers)),
        *_words(given, "downlink", "group", "interface", "hops", "multicast_rate"),
    ]  # fmt: skip
    worker_options = {
        name: [*shared, *rows, *heard, "--partitions", ",".join(stored), "--save", str(folder / f"{k}.npz")]
        for k, (name, stored) in enumerate(placement.as_dict().items())
    }
    with RunProgress(settings.rounds) as progress:
        cluster = LocalCluster(server_options, worker_options, progress.note)
        try:
            return run(cluster.run())
        finally:
            cluster.kill()


def _words(given: dict[str, Any], *names: str) -> list[str]:
    """Options as they were given, for another command."""
    return [
        word
        for name in names
        if given[name] is not None
        for word in (f"--{name.replace('_', '-')}", str(given[name]))
    ]


def _agreed_models(files: list[Path], exact: bool) -> tuple[TaskModels, float]:
    """The models of all tasks, from what the workers saved, and how far any two of them are apart.

    The distance is the largest difference relative to the largest coefficient; CodingError if it is not 0
    where the strategy is `exact`.
    """
    found: dict[str, TaskModels] = {}
    spread = 0.0
    for file in files:
        saved = SavedModel.load(file).models
        for row, task in enumerate(saved.tasks):
            model = saved.of([row])
            known = found.setdefault(task, model)
            ours, theirs = (np.append(m.coef_, m.intercept_).astype(np.float64) for m in (known, model))
            spread = max(spread, float(np.abs(ours - theirs).max() / (np.abs(ours).max() or 1.0)))
    if exact and spread > 0:
        raise CodingError(f"workers ended with models that differ by {spread:.3g}; this is a defect")
    tasks = tuple(sorted(found, key=natural_key))
    coef, intercept = (
        np.concatenate([getattr(found[task], name) for task in tasks]) for name in ("coef_", "intercept_")
    )
    return TaskModels(tasks, coef, intercept, found[tasks[0]].loss), spread
