"""The options of trackers, and the callbacks that they ask for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import click

from asyncdmtl.cli.command import together
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.report.callbacks import Callbacks
from asyncdmtl.report.json_output import write_report
from asyncdmtl.report.trackers import MLflowTracker, TensorBoardTracker
from asyncdmtl.server.events import Finished, OnEvent, ServerEvent, Started
from asyncdmtl.server.records import RunOptions

log = logging.getLogger(__name__)

tracker_options = together(
    click.option(
        "--mlflow",
        metavar="EXPERIMENT",
        help="Track the run in this experiment of MLflow, at MLFLOW_TRACKING_URI: settings, objective and "
        "bytes of each round, final scores and loads, the report and, for run, the models.",
    ),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Write settings, objective and bytes of each round, final scores and loads here, for "
        "TensorBoard.",
    ),
)


class Tracking:
    """Tells trackers of a run, which ends with the `with` block.

    Parameters
    ----------
    given : mapping
        The options, `mlflow` and `tensorboard` among them.

    Raises
    ------
    UsageError
        The package of a tracker is not installed, or its directory cannot be made.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        trackers: list[OnEvent] = []
        if given["mlflow"] is not None:
            trackers.append(MLflowTracker(given["mlflow"]))
        if given["tensorboard"] is not None:
            trackers.append(TensorBoardTracker(given["tensorboard"]))
        self._any = bool(trackers)
        self._callbacks = Callbacks(trackers)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # The directory outlives the callbacks, which may still be reading from it. Without trackers there is
        # none: a server in a container may have no place to write to.
        if self._any:
            self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="asyncdmtl-")))
        self._stack.enter_context(self._callbacks)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def start(self, options: RunOptions) -> None:
        """A run with these options begins."""
        parameters = {**options.settings.as_dict(), "strategy": options.strategy, "workers": options.workers}
        self._callbacks.note(Started(parameters))

    def beside(self, on_event: OnEvent) -> OnEvent:
        """A function that passes events of the run to `on_event`, and to the trackers."""

        def note(event: ServerEvent) -> None:
            on_event(event)
            self._callbacks.note(event)

        return note

    def finish(self, report: dict[str, Any], model: SavedModel | None = None) -> None:
        """The run has ended with this report and, where they are known, these models."""
        if not self._any:
            return
        files = [self._folder / "report.json", self._folder / "model.npz"][: 1 if model is None else 2]
        try:
            write_report(report, files[0])
            if model is not None:
                model.save(files[1])
        except (AsyncDMTLError, OSError) as error:
            log.warning("trackers get no files: %s", error)
            files = []
        self._callbacks.note(Finished(report, tuple(files)))
