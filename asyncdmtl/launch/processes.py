"""A whole run on this machine: the server in this process, every worker in one of its own.

Rows travel to the workers in files that nobody else may read, models back in others; both go when the run is
over. `python -m asyncdmtl.launch.processes FOLDER NAME` is a worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import AsyncDMTLError, LinkError, PeerError
from asyncdmtl.launch.threads import GRACE, OnEvent, WorkerData, run_apart, serve
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.event_loop import Terminated, run
from asyncdmtl.server.records import RunOptions, RunRecord
from asyncdmtl.worker.worker import Worker, WorkerOptions


def run_in_processes(
    options: RunOptions, stored: Mapping[str, Sequence[Partition]], on_event: OnEvent | None = None
) -> tuple[RunRecord, TaskModels]:
    """Make a run with worker processes on this machine and return when it is over.

    The workers end with this process, however it ends. Returns and raises as `threads.run_in_threads`.
    """
    with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as name:
        folder = Path(name)
        files: dict[str, str] = {}
        for partition in (partition for own in stored.values() for partition in own):
            if partition.id not in files:
                files[partition.id] = f"{len(files)}.npz"
                _write(partition, folder / files[partition.id])
        workers = {
            name: _worker(folder, f"worker-{k}", name, [files[partition.id] for partition in own])
            for k, (name, own) in enumerate(stored.items())
        }
        # Nobody starts another worker in the place of one that was lost.
        return run_apart(serve(replace(options, rejoin_timeout=0.0), workers, on_event))


def _worker(folder: Path, stem: str, name: str, files: Sequence[str]) -> WorkerData:
    async def take_part(host: str, port: int, secret: bytes) -> TaskModels:
        job = {"host": host, "port": port, "name": name, "secret": secret.hex(), "partitions": files}
        with _private(folder / f"{stem}.json") as file:
            file.write(json.dumps(job).encode())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, str(folder), stem,
            stdin=PIPE, stdout=PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            told = await process.stdout.read()
            _check(name, await process.wait(), told)
        finally:
            await asyncio.shield(_stop(process))
        return SavedModel.load(folder / f"{stem}-models.npz").models

    return take_part


def _check(name: str, code: int, told: bytes) -> None:
    """Raise what a worker that ended with this exit code and these last words failed of."""
    if code < 0:
        raise LinkError(f"worker {name!r} was killed by {signal.Signals(-code).name}", peer=name)
    if code > 0:
        error = f"worker {name!r}: {told.decode(errors='replace') or 'failed'}"
        raise LinkError(error, peer=name) if code == LinkError.exit_code else PeerError(error, exit_code=code)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()


def _private(path: Path) -> BinaryIO:
    """A new file that nobody else may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write(partition: Partition, path: Path) -> None:
    arrays: dict[str, Any] = {"names": np.array([partition.id, partition.task])}
    arrays |= {"X": partition.X, "y": partition.y}
    if partition.weights is not None:
        arrays["weights"] = partition.weights
    with _private(path) as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Partition:
    with np.load(path, allow_pickle=False) as file:
        id_, task = map(str, file["names"])
        return Partition(id_, task, file["X"], file["y"], file.get("weights"))


def main(folder: Path, stem: str) -> int:
    """Take part in a run as the job file says; the exit code, after the last words of one who failed."""
    job: dict[str, Any] = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
    partitions = [_read(folder / name) for name in job["partitions"]]
    security = WorkerSecurity(bytes.fromhex(job["secret"]))
    participant = Worker(WorkerOptions(job["name"]), partitions, security)
    try:
        models = run(participant.run(job["host"], job["port"]), until_eof=True)
        SavedModel(models, *participant.trained_with).save(folder / f"{stem}-models.npz")
    except AsyncDMTLError as error:
        sys.stdout.write(str(error))
        # What the server said is known here: that it was lost is all that this worker can add.
        return LinkError.exit_code if isinstance(error, PeerError) else error.exit_code
    except Terminated:
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
