"""The training run of an estimator: in threads, in processes, or with a server elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.joining import join_server
from asyncdmtl.launch.processes import run_in_processes
from asyncdmtl.launch.threads import run_in_threads
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.plan.placement import Placement
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


def run_on(
    cluster: Any,
    settings: Settings,
    strategy: str,
    partitions: Sequence[Partition],
    placement: Placement,
    left_to_server: Collection[str] = (),
) -> tuple[RunRecord, TaskModels]:
    """Train with the workers of a placement.

    Parameters
    ----------
    cluster : str or distributed.Client
        "threads", "processes", a Dask client, or HOST:PORT of a server.
    settings : Settings
    strategy : str
        The strategy of a run on this machine; a server elsewhere has its own.
    partitions : sequence of N Partitions
        In the order of the placement's partitions.
    placement : Placement
    left_to_server : collection of str
        Names of settings that a server elsewhere decides.

    Raises
    ------
    UsageError
        `cluster` has another value, or a setting breaks a rule.
    AsyncDMTLError
        The run failed.
    """
    stored = {
        worker: [partitions[n] for n in held]
        for worker, held in zip(placement.workers, placement.stored, strict=True)
    }
    options = RunOptions(settings, strategy, len(stored))
    if cluster == "threads":
        return run_in_threads(options, stored)
    if cluster == "processes":
        return run_in_processes(options, stored)
    if is_dask(cluster):
        # Imported here, because other clusters do not need Dask.
        from asyncdmtl.dask.cluster import run_with_partitions

        return run_with_partitions(cluster, options, stored)
    if not is_remote(cluster):
        rule = "must be threads, processes, a Dask client or HOST:PORT of a server"
        raise UsageError("cluster", rule, cluster)
    return join_server(*parse_address(cluster, "cluster"), settings, stored, left_to_server)
