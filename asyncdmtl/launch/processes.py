"""A run on this machine: the server in this process, and every worker in a process of its own.

A worker process is `python -m asyncdmtl.worker`, the command that users call too. Its standard input is
closed when this process ends, in whatever way, and the worker then ends, too. All processes share a secret,
so that no other process on this machine can take part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.partition_file import write_partition
from asyncdmtl.errors import LinkError, PeerError
from asyncdmtl.extensions import PLUGINS_VARIABLE
from asyncdmtl.launch.threads import ENDING_SECONDS, TakePart, run_apart, serve
from asyncdmtl.learning.shared_solutions import FOLDER_VARIABLE
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.credentials import SECRET_VARIABLE
from asyncdmtl.server.events import OnEvent
from asyncdmtl.server.records import RunOptions, RunRecord

# The longest line, in bytes, that is read from a worker process. Its lines are events of a few hundred bytes.
LONGEST_LINE = 1 << 20

# The modules that processes run.
WORKER, RELAY = "asyncdmtl.worker", "asyncdmtl.relay"

# The directory that holds this package.
_ROOT = str(Path(__file__).resolve().parents[2])


def run_in_processes(
    options: RunOptions, stored: Mapping[str, Sequence[Partition]], on_event: OnEvent | None = None
) -> tuple[RunRecord, TaskModels]:
    """Make a run with worker processes on this machine and return when it is over.

    Rows travel to the workers in files that only this user may read, and models travel back in others. All
    files are deleted when the run is over. Parameters, result and errors are those of
    `threads.run_in_threads`, except that the limits on waits in `options` hold.
    """
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as name:
        folder = Path(name)
        files: dict[str, Path] = {}
        for partition in (partition for own in stored.values() for partition in own):
            if partition.id not in files:
                files[partition.id] = folder / f"{len(files)}.npz"
                descriptor = os.open(files[partition.id], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    write_partition(partition, file)
        workers = {
            name: worker_process(
                name,
                [word for partition in own for word in ("--partition-file", str(files[partition.id]))],
                folder / f"models-{k}.npz",
            )
            for k, (name, own) in enumerate(stored.items())
        }
        # No other worker will be started in place of a lost one, so waiting for one is useless.
        return run_apart(serve(replace(options, rejoin_timeout=0.0), workers, on_event))


def worker_process(
    name: str, options: Sequence[str], models: Path, wants: str = "", *, stream: bool = False
) -> TakePart:
    """A worker for `threads.serve` that runs in a process of its own.

    Parameters
    ----------
    name : str
        The worker's name in the run.
    options : sequence of str
        Further options of `python -m asyncdmtl.worker`, such as those for its data.
    models : Path
        The file in which it saves the models of all tasks.
    wants : str
        As for `WorkerOptions`. A worker that wants none saves no file, and returns None.
    stream : bool
        Whether it takes part in a stream of jobs. It then saves a file for each, and returns None.

    Returns
    -------
    callable
        A coroutine function that takes part in a run and returns the models. It raises PeerError, with the
        message and the exit code of the process, if the process failed, and LinkError if a signal killed it.
    """

    asked = ["--wants", wants] if wants else []
    saved = [] if wants == "none" else ["--save", str(models)]

    async def take_part(host: str, port: int, secret: bytes) -> TaskModels | None:
        process = await start_process(
            WORKER,
            secret,
            models.parent,
            "--connect",
            format_address(host, port),
            "--name",
            name,
            *asked,
            *saved,
            *options,
        )
        try:
            while (await next_event(f"worker {name!r}", process))["event"] != "finished":
                pass
            await process.wait()
        finally:
            await asyncio.shield(stop_process(process))
        return SavedModel.load(models).models if saved and not stream else None

    return take_part


async def start_process(module: str, secret: bytes, folder: Path, *options: str) -> Process:
    """Start a worker or relay process that prints its events as JSON and ends with its standard input.

    Workers with the same folder share solutions in it.
    """
    # Options in the environment are for the command that the user called, which passes them on explicitly.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("ASYNCDMTL_") or key in ("ASYNCDMTL_KERNEL", PLUGINS_VARIABLE)
    }
    environment[SECRET_VARIABLE] = secret.decode()
    environment[FOLDER_VARIABLE] = str(folder)
    # With -P, Python imports nothing from the current directory, which may contain a file such as random.py.
    # If the package itself is in the current directory, the process finds it by this path.
    if os.getcwd() == _ROOT:  # noqa: PTH109
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), _ROOT)))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module, *options, "--format", "json", "--until-eof",
        stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE, start_new_session=True, env=environment,
    )  # fmt: skip


async def next_event(what: str, process: Process) -> dict[str, Any]:
    """The next event of a process; an error if it reports that it failed, or ends without a report.

    Errors call the process `what`, such as "worker 'w0'".
    """
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        code = await process.wait()
        if code < 0:
            raise LinkError(f"{what} was killed by {signal.Signals(-code).name}", peer=what)
        message = f"{what} ended with exit code {code} before it had finished"
        raise PeerError(message, exit_code=max(code, 1))
    event: dict[str, Any] = json.loads(line)
    if event["event"] == "failed":
        await process.wait()
        raise PeerError(f"{what}: {event['error']}", exit_code=event["exit_code"])
    return event


async def stop_process(process: Process) -> None:
    """End a process if it still runs: first by SIGTERM, after a while by SIGKILL."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(ENDING_SECONDS):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await process.wait()
