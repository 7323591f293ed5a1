"""The training run of an estimator: in threads, in processes, or with a server elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.fitting import Fitting, fit_with_server
from asyncdmtl.launch.joining import join_server
from asyncdmtl.launch.processes import run_in_processes
from asyncdmtl.launch.threads import run_in_threads
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.callbacks import Callbacks
from asyncdmtl.report.progress_bar import run_progress
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.events import Finished, OnEvent, Started
from asyncdmtl.server.records import RunOptions, RunRecord


def is_dask(cluster: object) -> bool:
    """Whether `cluster` is a Dask client. Without distributed in this process there can be none."""
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(cluster, distributed.Client)


def is_remote(cluster: object) -> bool:
    """Whether `cluster` is the address of a server, HOST:PORT."""
    return isinstance(cluster, str) and ":" in cluster


def check_site(name: object, cluster: object, *, standardise: bool) -> None:
    """UsageError if `name` is no name of a site that shares a server's run."""
    if not isinstance(name, str):
        raise UsageError("name", "must be text", name)
    if name and not is_remote(cluster):
        raise UsageError("name", "is for a cluster that is HOST:PORT of a server", name)
    if name and standardise:
        rule = "must be False with a name: each site would scale its columns in another way"
        raise UsageError("standardise", rule, standardise)


def of_site(placement: Placement, name: str) -> Placement:
    """The placement with the name of the site before those of its workers; as it is if that is empty."""
    if not name:
        return placement
    named = {
        f"{name}-{worker}": [placement.partitions[n] for n in held]
        for worker, held in zip(placement.workers, placement.stored, strict=True)
    }
    return Placement(named, placement.partitions)


@dataclass(frozen=True)
class Launch:
    """How a run is launched.

    Attributes
    ----------
    cluster : str or distributed.Client
        "threads", "processes", a Dask client, or HOST:PORT of a server.
    strategy : str
        The strategy of a run on this machine; a server elsewhere has its own.
    left_to_server : collection of str
        Names of settings that a server elsewhere decides.
    on_event : callable or None
        It gets every event of the run. A server elsewhere tells no events.
    shared : bool
        Whether other sites take part in the run of a server elsewhere, which then makes one run.
    job_settings : callable or None
        The settings of a job for a server with a stream of jobs, to which nothing is left; default: those of
        the run.
    """

    cluster: Any
    strategy: str
    left_to_server: Collection[str] = ()
    on_event: OnEvent | None = None
    shared: bool = False
    job_settings: Callable[[], Settings] | None = None


def run_observed(
    launch: Launch,
    settings: Settings,
    partitions: Sequence[Partition],
    placement: Placement,
    *,
    verbose: bool = False,
) -> tuple[RunRecord, TaskModels]:
    """As `run_on`; `on_event` gets `Started` and `Finished` or `Failed` as well, and cannot end the run.

    With `verbose`, a bar on stderr or in the notebook shows the progress.
    """
    functions: list[OnEvent] = [] if launch.on_event is None else [launch.on_event]
    with ExitStack() as stack:
        if verbose:
            bar = run_progress(settings.rounds)
            stack.enter_context(bar)
            functions.append(bar.note)
        if not functions:
            return run_on(launch, settings, partitions, placement)
        callbacks = stack.enter_context(Callbacks(functions))
        more = {"strategy": launch.strategy, "workers": len(placement.workers)}
        callbacks.note(Started(settings.as_dict() | more))
        found = run_on(replace(launch, on_event=callbacks.note), settings, partitions, placement)
        callbacks.note(Finished(report_run(found[0])))
    return found


def run_on(
    launch: Launch, settings: Settings, partitions: Sequence[Partition], placement: Placement
) -> tuple[RunRecord, TaskModels]:
    """Train with the workers of a placement.

    Parameters
    ----------
    launch : Launch
    settings : Settings
    partitions : sequence of N Partitions
        In the order of the placement's partitions.
    placement : Placement

    Raises
    ------
    UsageError
        `cluster` has another value, or a setting breaks a rule.
    AsyncDMTLError
        The run failed.
    """
    cluster, on_event = launch.cluster, launch.on_event
    stored = {
        worker: [partitions[n] for n in held]
        for worker, held in zip(placement.workers, placement.stored, strict=True)
    }
    options = RunOptions(settings, launch.strategy, len(stored))
    if cluster == "threads":
        return run_in_threads(options, stored, on_event)
    if cluster == "processes":
        return run_in_processes(options, stored, on_event)
    if is_dask(cluster):
        # Imported here, because other clusters do not need Dask.
        from asyncdmtl.dask.cluster import run_with_partitions

        return run_with_partitions(cluster, options, stored, on_event)
    if not is_remote(cluster):
        rule = "must be threads, processes, a Dask client or HOST:PORT of a server"
        raise UsageError("cluster", rule, cluster)
    host, port = parse_address(cluster, "cluster")
    if launch.shared:
        return join_server(host, port, settings, stored, launch.left_to_server)
    fitting = Fitting(settings, stored, launch.strategy, launch.left_to_server, launch.job_settings)
    return fit_with_server(host, port, fitting)
