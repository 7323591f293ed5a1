"""Trackers of experiments, as callbacks of a run: MLflow and TensorBoard.

Any function of a `ServerEvent` can be a callback. It gets `Started`, all events of the server, among them a
`RoundRecord` for each round, and in the end `Finished` or `Failed`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from asyncdmtl.errors import UsageError
from asyncdmtl.server.events import Failed, Finished, Listening, ServerEvent, Started
from asyncdmtl.server.records import RoundRecord

# The parts of a report whose numbers are final metrics.
_PARTS = ("training", "uplink", "downlink_wire", "downlink_broadcast", "metrics", "seconds")

# The keys of a report with an entry for each task, of which there may be thousands.
_BY_TASK = ("tasks", "further")

# The most characters of a parameter that all versions of MLflow's servers take.
_LONGEST_PARAMETER = 250

# MLflow takes this number of metrics in one request, and rounds are sent together for up to so many seconds.
_MOST_METRICS, _BATCH_SECONDS = 1000, 2.0


def round_metrics(record: RoundRecord) -> dict[str, float]:
    """The metrics of a round by name; those that are not known, as objectives at times, are left out."""
    names = ("objective", "residual", "up_bytes", "down_bytes", "seconds")
    return {name: float(value) for name in names if math.isfinite(value := getattr(record, name))}


def final_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report that describe the whole run, by names such as `final/uplink/load`."""
    return {
        f"final/{_plain(name)}": value for part in _PARTS for name, value in _numbers(part, report.get(part))
    }


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _BY_TASK:
                yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, str):
        # Loads are fractions as text.
        if re.fullmatch(r"\d+(/[1-9]\d*)?", value):
            yield name, float(Fraction(value))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)


def _plain(name: str) -> str:
    """A name of characters that all trackers take."""
    return re.sub(r"[^\w/.-]", "_", name, flags=re.ASCII)


class MLflowTracker:
    """A callback that tracks a run in an experiment of MLflow, at MLFLOW_TRACKING_URI.

    Parameters
    ----------
    experiment : str
        Its name. It is made if it does not exist.

    Raises
    ------
    UsageError
        MLflow is not installed, or the name is empty.
    """

    def __init__(self, experiment: str) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise UsageError("--mlflow", "needs: pip install 'asyncdmtl[mlflow]'", experiment) from error
        if not experiment.strip():
            raise UsageError("--mlflow", "must be the name of an experiment", experiment)
        self._make_client = MlflowClient
        self._client: Any = None
        self._experiment = experiment
        self._id = ""
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def __call__(self, event: ServerEvent) -> None:
        """Track an event."""
        match event:
            case Started():
                self._start(event.parameters)
            case Listening():
                self._client.set_tag(self._id, "mlflow.runName", event.run)
            case RoundRecord():
                self._add(round_metrics(event), event.round)
                late = time.monotonic() - self._sent > _BATCH_SECONDS
                if late or len(self._waiting) > _MOST_METRICS - 10:
                    self._send()
            case Finished():
                self._add(final_metrics(event.report), 0)
                self._send()
                for file in event.files:
                    self._client.log_artifact(self._id, str(file))
                self._client.set_terminated(self._id, "FINISHED")
            case Failed() if self._client is not None:
                self._send()
                self._client.set_tag(self._id, "reason", event.reason)
                self._client.set_terminated(self._id, "FAILED")
            case _:
                pass

    def _start(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self._client = self._make_client()
        found = self._client.get_experiment_by_name(self._experiment)
        number = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        self._id = self._client.create_run(number).info.run_id
        params = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in parameters.items()]
        self._client.log_batch(self._id, params=params)

    def _add(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in metrics.items()]

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting[:_MOST_METRICS])
            del self._waiting[:_MOST_METRICS]
        self._sent = time.monotonic()


class TensorBoardTracker:
    """A callback that writes files for TensorBoard, in a directory of the run's name.

    Parameters
    ----------
    folder : Path
        The directory of all runs, which is made if it does not exist.

    Raises
    ------
    UsageError
        tensorboardX is not installed, or the directory cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            rule = "needs: pip install 'asyncdmtl[tensorboard]'"
            raise UsageError("--tensorboard", rule, str(folder)) from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = f"must be a directory that can be written to ({error.strerror})"
            raise UsageError("--tensorboard", rule, str(folder)) from error
        self._make_writer = SummaryWriter
        self._writer: Any = None
        self._folder = folder
        self._parameters: Mapping[str, Any] = {}

    def __call__(self, event: ServerEvent) -> None:
        """Write what an event says."""
        match event:
            case Started():
                self._parameters = event.parameters
            case Listening():
                self._writer = self._make_writer(str(self._folder / event.run))
                rows = [f"| {name} | {value} |" for name, value in self._parameters.items()]
                self._writer.add_text(
                    "parameters", "\n".join(["| setting | value |", "| --- | --- |", *rows])
                )
            case RoundRecord():
                for name, value in round_metrics(event).items():
                    self._writer.add_scalar(name, value, event.round)
            case Finished() if self._writer is not None:
                for name, value in final_metrics(event.report).items():
                    self._writer.add_scalar(name, value, 0)
                self._writer.close()
            case Failed() if self._writer is not None:
                self._writer.add_text("failed", event.reason)
                self._writer.close()
            case _:
                pass
