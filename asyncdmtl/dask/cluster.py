"""A run whose workers are tasks on Dask workers; its server is in the process of the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, MultiLock
from distributed.comm import get_address_host

from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import LinkError, UsageError
from asyncdmtl.launch.threads import LOOPBACK, Endpoint, TakePart, run_apart, serve
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.authentication import WorkerSecurity, is_loopback
from asyncdmtl.net.run_certificate import RunCertificate, trusting
from asyncdmtl.server.events import OnEvent
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

# Makes partitions of what a Dask worker holds of the data.
Read = Callable[[Sequence[Any]], Sequence[Stored]]


@dataclass(frozen=True)
class Part:
    """What a Dask worker must know to take part in a run.

    `secret` proves to the server that it belongs to the run, and `certificate`, in PEM, is that of the
    server; it is empty for a server on this machine.
    """

    name: str
    host: str
    port: int
    secret: bytes
    certificate: bytes


def addresses(client: Client) -> list[str]:
    """The addresses of all Dask workers, in a fixed order; UsageError if there are none."""
    if client.asynchronous:
        raise UsageError("client", "must be synchronous: Client(…) without asynchronous=True", client)
    found = sorted(client.nthreads())
    if not found:
        raise UsageError("client", "must have at least one Dask worker", client)
    return found


def run_on_workers(
    client: Client,
    options: RunOptions,
    held: Mapping[str, Sequence[Any]],
    read: Read,
    on_event: OnEvent | None = None,
    *,
    host: str | None = None,
    port: int = 0,
) -> tuple[RunRecord, TaskModels]:
    """Make a run with a task pinned to each Dask worker, and return when it is over.

    Runs on the same Dask workers wait for each other, so that none holds a worker while it waits for one.

    Parameters
    ----------
    client : Client
        The client of the cluster, a synchronous one.
    options : RunOptions
    held : mapping of address of a Dask worker to list
        The data that the worker is to hold: futures, or tuples with futures in them. Dask copies what is not
        there yet.
    read : callable
        Makes partitions of a worker's data, at that worker.
    on_event : callable, optional
        Called with every event of the server, in the thread of the run.
    host, port
        Where the server listens. By default, it is the address by which this process reaches the scheduler,
        and a free port. Connections beyond this machine are encrypted.

    Returns
    -------
    record : RunRecord
    models : TaskModels

    Raises
    ------
    AsyncDMTLError
        The run failed.
    """
    host = host or _own_host(client)
    certificate = None if is_loopback(host) else RunCertificate.make(host)
    workers = {address: _pinned(client, address, data, read, certificate) for address, data in held.items()}
    tls = None if certificate is None else certificate.server_context()
    with MultiLock(names=[f"asyncdmtl {address}" for address in held], client=client):
        return run_apart(serve(options, workers, on_event, endpoint=Endpoint(host, port, tls)))


def run_with_partitions(
    client: Client,
    options: RunOptions,
    stored: Mapping[str, Sequence[Partition]],
    on_event: OnEvent | None = None,
) -> tuple[RunRecord, TaskModels]:
    """Make a run whose workers are Dask workers, and send these the partitions that they are to store.

    Returns and raises as `run_on_workers`. It is a UsageError if the cluster has fewer workers than `stored`.
    """
    found = addresses(client)
    if len(found) < len(stored):
        rule = f"must be at most the number of Dask workers, {len(found)}"
        raise UsageError("workers", rule, len(stored))
    at = dict(zip(stored, found, strict=False))
    parts = {part.id: part for own in stored.values() for part in own}
    scattered = {
        name: client.scatter(
            part, workers=[at[worker] for worker, own in stored.items() if part in own], hash=False
        )
        for name, part in parts.items()
    }
    held = {at[worker]: [scattered[part.id] for part in own] for worker, own in stored.items()}
    return run_on_workers(client, options, held, tuple, on_event)


def _own_host(client: Client) -> str:
    """The address of this process in the network of the scheduler."""
    local = str(client.scheduler_comm.comm.local_address)
    if not local.startswith(("tcp://", "tls://", "ws://", "wss://")):
        return LOOPBACK  # the scheduler is in this process
    return str(get_address_host(local))


def _pinned(
    client: Client, address: str, data: Sequence[Any], read: Read, certificate: RunCertificate | None
) -> TakePart:
    """A worker for `serve`: a task that only the Dask worker at `address` may execute."""

    async def take_part(host: str, port: int, secret: bytes) -> TaskModels:
        part = Part(address, host, port, secret, b"" if certificate is None else certificate.certificate)
        task = client.submit(
            work, part, read, list(data), workers=[address], allow_other_workers=False, pure=False, retries=0
        )
        try:
            await _done(task)
            if task.status not in ("finished", "error"):
                raise LinkError(f"Dask has {task.status} the task of worker {address!r}", peer=address)
            models: TaskModels = await asyncio.to_thread(task.result)
            return models
        finally:
            await asyncio.to_thread(task.cancel)

    return take_part


async def _done(task: Future) -> None:
    """Wait until Dask has executed a task or has given it up."""
    done: ThreadFuture[None] = ThreadFuture()
    task.add_done_callback(lambda _: done.set_result(None) if done.set_running_or_notify_cancel() else None)
    await asyncio.wrap_future(done)


def work(part: Part, read: Read, data: Sequence[Any]) -> TaskModels:
    """Take part in a run with what this Dask worker holds of the data; returns the final models."""
    security = WorkerSecurity(part.secret, trusting(part.certificate) if part.certificate else None)
    worker = Worker(WorkerOptions(part.name), read(data), security)
    return run_apart(worker.run(part.host, part.port))
