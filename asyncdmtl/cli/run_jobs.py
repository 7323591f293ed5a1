"""`asyncdmtl run --jobs`: a stream of jobs on this machine, with a report of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asyncdmtl.cli.blind_options import new_group_secret
from asyncdmtl.cli.job_options import read_jobs
from asyncdmtl.cli.streams import OutcomePrinter
from asyncdmtl.data import loading
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.table import TASK
from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.launch.processes import worker_process
from asyncdmtl.launch.streams import serve_stream
from asyncdmtl.learning.metrics import metrics_for
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import write_placement
from asyncdmtl.report.evaluation import evaluate
from asyncdmtl.report.run_report import Report, report_run
from asyncdmtl.server.events import ServerEvent
from asyncdmtl.server.jobs import Job, JobOutcome, StreamOptions
from asyncdmtl.server.records import RunOptions


@dataclass(frozen=True)
class PreparedJob:
    """The data of a job as numbers, with its settings."""

    loaded: loading.Loaded
    settings: Settings
    prepared: loading.Prepared


@dataclass(frozen=True)
class LocalStream:
    """What all jobs have in common.

    Attributes
    ----------
    placement : Placement
    wants : sequence of str
    words : sequence of str
        Options of the worker processes.
    format : str
    report_file, save : Path or None
    """

    placement: Placement
    wants: Sequence[str]
    words: Sequence[str]
    format: str
    report_file: Path | None
    save: Path | None


# Prepares a job from the values of its options and the column that is predicted.
Prepare = Callable[[Mapping[str, Any], str], PreparedJob]

# The models that workers saved in files, and how far those of any two differ.
Agreed = Callable[[list[Path], bool], tuple[TaskModels, float]]


def make_jobs(stream: LocalStream, given: Mapping[str, Any], prepare: Prepare, agreed: Agreed) -> None:
    """Make the jobs of a file with worker processes, and print the report of each when all have ended."""
    prepared: dict[str, PreparedJob] = {}
    workers = stream.placement.workers

    def make(name: str, own: Mapping[str, Any], target: str) -> Job:
        prepared[name] = job = prepare(own, target)
        # No other worker will be started in place of a lost one, so waiting for one is useless.
        options = RunOptions(
            job.settings,
            own["strategy"],
            len(workers),
            rejoin_timeout=0.0,
            links=own["links"],
            silent=own["silent"],
            blind=own["blind"],
        )
        return Job(name, options, target)

    jobs = read_jobs(given["jobs_file"], given, make)
    options = StreamOptions(given["in_flight"], given["any_order"])
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as folder_name:
        folder = Path(folder_name)
        write_placement(stream.placement, folder / "placement.json")
        words = [*stream.words, "--placement", str(folder / "placement.json")]
        if given["blind"]:
            words += ["--group-secret-file", str(new_group_secret(folder))]
        processes = {
            worker: worker_process(worker, words, folder / f"{k}.npz", word, stream=True)
            for k, (worker, word) in enumerate(zip(workers, stream.wants, strict=True))
        }
        outcomes = run(serve_stream(jobs, options, processes, _ignore))
        reports: dict[str, Report] = {}
        printer = OutcomePrinter(stream.format, stream.report_file, lambda outcome: reports[outcome.job.name])
        for outcome in outcomes:
            name, ended = outcome.job.name, outcome
            if outcome.record is not None:
                files = [folder / f"{k}-{name}.npz" for k in range(len(workers))]
                files = [file for file in files if file.exists()]
                try:
                    exact = outcome.job.options.strategy != "linear"
                    found = agreed(files, exact)
                    # Only the workers of a blind run know what they chose.
                    chosen = SavedModel.load(files[0]).settings if given["blind"] else None
                    settings = chosen or outcome.record.settings
                    reports[name] = _evaluated(stream, prepared[name], outcome, found, settings)
                except AsyncDMTLError as error:
                    ended = replace(outcome, record=None, error=error)
            printer.note(ended)
    printer.finish()


def _evaluated(
    stream: LocalStream,
    job: PreparedJob,
    outcome: JobOutcome,
    found: tuple[TaskModels, float],
    settings: Settings,
) -> Report:
    """The report of a job with its test metrics; the models are saved beside."""
    assert outcome.record is not None
    models, spread = found
    report = report_run(outcome.record)
    report["models_spread"] = spread
    if job.prepared.test:
        metric = job.loaded.metric or metrics_for(settings.loss)[0]
        report["metrics"] = evaluate(job.prepared.partitions, job.prepared.test, models, settings, metric)
    if stream.save is not None:
        file = stream.save.with_name(f"{stream.save.stem}-{outcome.job.name}{stream.save.suffix}")
        SavedModel(models, job.prepared.encoding, settings, job.loaded.task or TASK, report).save(file)
    return report


def _ignore(event: ServerEvent) -> None:
    """Show nothing of an event: reports come at the end."""
