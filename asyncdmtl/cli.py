"""`asyncdmtl`: the one entry point."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asyncdmtl import __version__, data, explain, place, report, server, worker
from asyncdmtl.command import command, emit
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import Settings
from asyncdmtl.plan.placement import Placement, natural_key
from asyncdmtl.plots import check_picture
from asyncdmtl.plots import plot as draw
from asyncdmtl.runtime.local import LocalCluster
from asyncdmtl.runtime.loop import run as run_loop
from asyncdmtl.server import make_settings, training_options

DEFAULT_WORKERS, DEFAULT_COPIES = 5, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="asyncdmtl")
def main() -> None:
    """Coded distributed multi-task learning over TCP: exact, load-optimal, every byte counted."""


@command("run")
@click.option(
    "--data",
    "spec",
    default="digits",
    help="What to train on: NAME, NAME:key=value,… or a recipe file; names: "
    + ", ".join(data.list_recipes())
    + ".",
)
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
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write the report here as JSON."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw loads, objective and metric here."
)
@click.option("--save", type=click.Path(path_type=Path), help="Write the models of all tasks here (.npz).")
def run(
    spec: str,
    workers: int | None,
    copies: int | None,
    placement: Path | None,
    report_file: Path | None,
    plot_file: Path | None,
    save: Path | None,
    format: str,
    log_level: str,
    log_file: Path | None,
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
    dataset = data.load(spec, seed=given["seed"])
    chosen = _placement(dataset, workers, copies, placement)
    settings = make_settings(dataset, given)
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as folder:
        finished = _train(spec, chosen, settings, given["strategy"], log_level, log_file, Path(folder))
        saved = [Path(folder) / f"{k}.npz" for k in range(len(chosen.workers))]
        present = [file for file in saved if file.exists()]
        models, spread = _agreed_models(present, exact=given["strategy"] != "linear")
    made = finished["report"]
    made["models_spread"] = spread
    made["metrics"] = _metrics(dataset, models)
    if format == "json":
        emit({"event": "finished", "report": made})
    else:
        report.show(made)
    if save is not None:
        models.save(save)
    if report_file is not None:
        report.write(made, report_file)
    if plot_file is not None:
        draw(made, plot_file)


def _check_output(path: Path | None, option: str) -> None:
    """Find out before hours of training whether a result can be written where it should be."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise UsageError(option, "must be in a directory that exists", str(path))
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(option, "must be a writable file", str(path))


main.add_command(run)
main.add_command(explain.main)
main.add_command(place.main)
main.add_command(server.main)
main.add_command(worker.main)


def _placement(
    dataset: data.Dataset, workers: int | None, copies: int | None, file: Path | None
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
    spec: str,
    placement: Placement,
    settings: Settings,
    strategy: str,
    log_level: str,
    log_file: Path | None,
    folder: Path,
) -> dict[str, Any]:
    """Run server and workers to the end; the server's last event."""
    shared = ["--data", spec, "--seed", str(settings.seed), "--log-level", log_level]
    if log_file is not None:
        shared += ["--log-file", str(log_file)]
    training = {
        "--strategy": strategy,
        "--coupling": settings.coupling,
        "--strength": repr(settings.strength),
        "--aggregate": settings.aggregate,
        "--rounds": str(settings.rounds),
        "--dtype": settings.dtype,
        "--workers": str(len(placement.workers)),
    }
    server_options = [*shared, *(word for pair in training.items() for word in pair)]
    worker_options = {
        name: [*shared, "--partitions", ",".join(stored), "--save", str(folder / f"{k}.npz")]
        for k, (name, stored) in enumerate(placement.as_dict().items())
    }
    with _Progress(settings.rounds) as progress:
        cluster = LocalCluster(server_options, worker_options, progress.note)
        try:
            return run_loop(cluster.run())
        finally:
            cluster.kill()


class _Progress:
    """A bar on stderr for a person; nothing where nobody watches."""

    def __init__(self, rounds: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("starting", total=rounds, detail="")
        self._bytes = 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, event: dict[str, Any]) -> None:
        """Show what an event of the server means for the progress."""
        handlers: dict[str, Callable[[], None]] = {
            "joined": lambda: self._bar.update(self._task, description="joining"),
            "planned": lambda: self._bar.update(self._task, description="training"),
            "incident": lambda: self._bar.console.print(f"worker {event['worker']}: {event['reason']}"),
            "round": lambda: self._round(event),
        }
        handlers.get(event["event"], lambda: None)()

    def _round(self, event: dict[str, Any]) -> None:
        self._bytes += event["up_bytes"] + event["down_bytes"]
        objective = "?" if event["objective"] is None else f"{event['objective']:.4g}"
        detail = f"objective {objective}, {report.human(self._bytes)}"
        self._bar.update(self._task, completed=event["round"] + 1, detail=detail)


def _agreed_models(files: list[Path], exact: bool) -> tuple[TaskModels, float]:
    """The models of all tasks, from what the workers saved, and how far any two of them are apart.

    The distance is the largest difference relative to the largest coefficient; CodingError if it is not 0
    where the strategy is `exact`.
    """
    found: dict[str, TaskModels] = {}
    spread = 0.0
    for file in files:
        saved = TaskModels.load(file)
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


def _metrics(dataset: data.Dataset, models: TaskModels) -> dict[str, Any]:
    """Scores on the test rows, beside those of every task trained alone on the same rows."""
    # Here and not above: scikit-learn takes a second to import, which no other command should wait for.
    from asyncdmtl.learning import baseline

    alone = baseline.single_task(dataset.partitions, dataset.loss, intercept=dataset.intercept)
    coupled, single = (baseline.score(each, dataset.test, dataset.metric) for each in (models, alone))
    return {
        "name": dataset.metric,
        "higher_is_better": baseline.higher_is_better(dataset.metric),
        "tasks": {task: {"coupled": coupled[task], "single_task": single[task]} for task in coupled},
        "mean": {"coupled": baseline.mean_score(coupled), "single_task": baseline.mean_score(single)},
    }
