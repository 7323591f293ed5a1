"""Workers in this process that join the run of a server elsewhere, and the record that they make of it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import UsageError
from asyncdmtl.exchange.sides import Convergence, ServerSide
from asyncdmtl.exchange.strategies import codable_units, strategy_of
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.launch.threads import best_told, merged, run_apart
from asyncdmtl.learning.outcome import settled
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.plan.compare import compare
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.records import RoundRecord, RunRecord
from asyncdmtl.worker.jobs import ALONE, JobPlace
from asyncdmtl.worker.observer import WorkerObserver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

log = logging.getLogger(__name__)

# Settings that need not equal the server's: a run does not standardise rows of numbers, and acceleration
# follows from the server's strategy.
_FREE = ("standardise", "accelerated")


def join_server(
    host: str,
    port: int,
    settings: Settings,
    stored: Mapping[str, Sequence[Partition]],
    free: Collection[str] = (),
) -> tuple[RunRecord, TaskModels]:
    """Take part in a server's run with all workers in `stored`, and return when the run is over.

    Secrets and certificates are taken from the variables that `python -m asyncdmtl.worker` reads:
    ASYNCDMTL_SECRET, ASYNCDMTL_SECRET_FILE, ASYNCDMTL_TLS_CA, ASYNCDMTL_TLS_CERT, ASYNCDMTL_TLS_KEY,
    ASYNCDMTL_TLS_SERVER_NAME, ASYNCDMTL_INSECURE.

    Parameters
    ----------
    host, port
        The address of the server.
    settings : Settings
        Settings that must equal the server's, except for those in `free`.
    stored : mapping of worker to sequence of Partition
    free : collection of str
        Settings that are left to the server.

    Returns
    -------
    record : RunRecord
        The record of the run as these workers saw it, with their own traffic. Objectives and residuals are
        NaN if other workers took part, too, and under `personal`, where only the server computes them.
    models : TaskModels
        The final models of these workers.

    Raises
    ------
    UsageError
        A setting differs from the server's; the error's `argument` is the first of them.
    AsyncDMTLError
        The run failed.
    """
    return run_apart(join_together(host, port, expected_settings(settings, free), stored))


def expected_settings(settings: Settings, free: Collection[str]) -> dict[str, Any]:
    """The settings that a server must have, by name: without those in `free` and those that do not matter."""
    return {name: value for name, value in vars(settings).items() if name not in (*_FREE, *free)}


async def join_together(
    host: str,
    port: int,
    expected: Mapping[str, Any],
    stored: Mapping[str, Sequence[Partition]],
    place: JobPlace = ALONE,
) -> tuple[RunRecord, TaskModels]:
    """As `join_server`, on a running event loop, and for the settings in `expected`.

    `place` is that of the run in the server's stream of jobs.
    """
    workers = [
        _LoggedWorker(WorkerOptions(name, place=place), partitions, expected, security_of(name, host))
        for name, partitions in stored.items()
    ]
    tasks = [asyncio.create_task(worker.run(host, port)) for worker in workers]
    try:
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if pending:
            raise best_told(tasks)
        models = [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    record = _record(workers)
    known = {task for own in models for task in own.tasks}
    return record, merged(models, [task for task in record.problem.tasks if task in known])


class _RunLog(WorkerObserver):
    """Checks the server's settings, and keeps the upload of each round and when it was begun.

    Attributes
    ----------
    uploads : dict of round to Upload
        The uploads, without their rows.
    began : dict of round to float
        The time at which the worker began to compute, in seconds of `time.perf_counter`.
    """

    def __init__(self, expected: Mapping[str, Any]) -> None:
        self.uploads: dict[int, Upload] = {}
        self.began: dict[int, float] = {}
        self._expected = expected

    def on_settings(self, settings: Settings) -> None:
        for name, own in self._expected.items():
            if own != (theirs := getattr(settings, name)):
                raise UsageError(name, f"must be that of the server, {theirs!r}", own)

    def before_compute(self, round_: int) -> None:
        self.began[round_] = time.perf_counter()

    def after_compute(self, round_: int, upload: Upload) -> None:
        self.uploads[round_] = replace(upload, rows=())


class _LoggedWorker(Worker):
    """A worker in the run of a server elsewhere, with its `_RunLog`."""

    def __init__(
        self,
        options: WorkerOptions,
        stored: Sequence[Partition],
        expected: Mapping[str, Any],
        security: WorkerSecurity,
    ) -> None:
        self.name = options.name
        self.log = _RunLog(expected)
        super().__init__(options, stored, security, self.log)


def _record(workers: Sequence[_LoggedWorker]) -> RunRecord:
    state, began = workers[0].state, workers[0].log.began
    side = state.side
    plan, problem = side.plan, side.trainer.problem
    server = strategy_of(plan).server_side(plan, problem)
    ledger = Ledger()
    for worker in workers:
        ledger.merge(worker.ledger)
    began = began | {state.round: time.perf_counter()}
    rounds = []
    for r in range(state.round):
        objective, residual, _ = _convergence(server, workers, r)
        up, down = ledger.round_bytes(r, "up"), ledger.round_bytes(r, "down")
        seconds = began.get(r + 1, math.nan) - began.get(r, math.nan)
        rounds.append(RoundRecord(r, objective, residual, up, down, seconds))
    outcome = side.trainer.outcome
    return RunRecord(
        run=state.run or "",
        settings=settled(problem.settings, outcome),
        encoding=Encoding.empty(),
        plan=plan,
        candidates=compare(plan.placement, problem.task_of, units=codable_units(problem.settings)),
        problem=problem,
        vector_bytes=server.vector_bytes,
        down_vector_bytes=server.down_vector_bytes,
        broadcast_bytes=server.broadcast_bytes,
        rounds=tuple(rounds),
        converged=problem.exact
        or len(rounds) < problem.rounds
        or problem.converged(rounds[-1].objective, rounds[-1].residual),
        ledger=ledger,
        kernel={},
        incidents=(),
        seconds=sum(entry.seconds for entry in rounds),
        outcome=outcome,
        critical_strength=state.critical_strength,
    )


def _convergence(server: ServerSide, workers: Sequence[_LoggedWorker], round_: int) -> Convergence:
    """Objective and residual of a round as the server computed them; NaN if other workers took part."""
    uploads = {worker.name: worker.log.uploads.get(round_) for worker in workers}
    placement = server.plan.placement
    sent = [part for name in placement.workers if (part := uploads.get(name)) is not None]
    reported = list(map(len, placement.stored))
    trains = strategy_of(server.plan).server_trains
    if trains or [len(part.losses) for part in sent] != reported:
        return Convergence(math.nan, math.nan, False)
    return server.convergence(sent)


def security_of(name: str, host: str) -> WorkerSecurity:
    """A worker's secret and certificates, from the environment variables of the command's options."""

    def given(option: str) -> str | None:
        return os.environ.get(f"ASYNCDMTL_{option}")

    def file(option: str) -> Path | None:
        path = given(option)
        return None if path is None else Path(path)

    security = WorkerSecurity.from_files(
        name, file("SECRET_FILE"), file("TLS_CA"), file("TLS_CERT"), file("TLS_KEY"), given("TLS_SERVER_NAME")
    )
    insecure = (given("INSECURE") or "").lower() in ("1", "true", "yes", "on")
    if (warning := security.check_exposure(host, insecure)) is not None:
        log.warning("%s", warning)
    return security
