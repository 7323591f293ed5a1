from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from support.clusters import stored_at
from support.problems import make_partitions, make_settings, run_options
from threadpoolctl import threadpool_info

from asyncdmtl.errors import AuthenticationError, DataError, WaitError
from asyncdmtl.launch.threads import run_apart, run_in_threads, serve
from asyncdmtl.learning.tasks import Declaration, Partition
from asyncdmtl.learning.training import train
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.events import DashboardListening, Listening, OnEvent, ServerEvent
from asyncdmtl.server.records import RoundRecord, RunOptions
from asyncdmtl.server.server import Server
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

PLACEMENT = Placement.cyclic(3, 6, 2)


def options(strategy: str = "relay", **settings: Any) -> RunOptions:
    """Options of a run of three workers, with some settings changed."""
    return run_options(settings=make_settings(**settings), strategy=strategy, workers=3)


def stored(partitions: Sequence[Partition]) -> dict[str, Any]:
    return dict(stored_at(PLACEMENT, partitions))


@pytest.mark.parametrize("strategy", ["relay", "personal"])
def test_a_run_in_this_process_is_the_twin(strategy: str) -> None:
    partitions = make_partitions(6, "squared")
    events: list[ServerEvent] = []
    threads = threading.enumerate()
    before = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    record, models = run_in_threads(options(strategy), stored(partitions), events.append)
    twin = train(partitions, options().settings)
    assert models.tasks == twin.models.tasks
    assert models.coef_.tobytes() == twin.models.coef_.tobytes()
    assert models.intercept_.tobytes() == twin.models.intercept_.tobytes()
    assert [entry.objective for entry in record.rounds] == twin.objectives.tolist()
    assert record.ledger.round_bytes(0, "up") > 0
    assert sum(isinstance(event, RoundRecord) for event in events) == 3
    assert threading.enumerate() == threads
    # A run may load more libraries.
    assert before.items() <= {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}.items()


@pytest.mark.parametrize("strategy", ["relay", "personal"])
def test_a_run_whose_coefficients_are_all_0_has_the_critical_strength(strategy: str) -> None:
    partitions = make_partitions(6, "squared")
    record, models = run_in_threads(options(strategy, coupling="l21", strength=1e6), stored(partitions))
    assert not models.coef_.any()
    assert record.critical_strength
    assert report_run(record)["critical_strength"] == record.critical_strength
    record, _ = run_in_threads(options(strategy, coupling="l21", strength=1e-6), stored(partitions))
    assert record.critical_strength is None


async def test_it_may_be_called_where_a_loop_is_running() -> None:
    record, _ = run_in_threads(options(), stored(make_partitions(6, "squared")))
    assert len(record.rounds) == 3


def test_a_run_may_be_watched() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def watch(server: Server, on_event: OnEvent) -> AsyncIterator[OnEvent]:
        on_event(DashboardListening("127.0.0.1", 7780, tls=False))
        yield lambda event: seen.append(event.name)
        seen.append(f"{len(server.uplink_seconds)} workers")

    partition = make_partitions(1, "squared")[0]

    async def take_part(host: str, port: int, secret: bytes) -> Any:
        security = WorkerSecurity(secret)
        return await Worker(WorkerOptions("w0"), [partition], security).run(host, port)

    told: list[str] = []
    only = run_options(settings=make_settings(), workers=1)
    run_apart(serve(only, {"w0": take_part}, lambda event: told.append(event.name), watch=watch))
    assert told == ["dashboard", *seen[:-1]]
    assert seen[0] == "listening"
    assert seen[-1] == "1 workers"


def test_a_worker_that_cannot_begin_ends_the_run_with_its_own_error() -> None:
    partitions = make_partitions(6, "squared")
    with pytest.raises(DataError, match="must be 0 or 1 for logistic loss"):
        run_in_threads(options(loss="logistic"), stored(partitions))


def test_what_all_workers_fail_of_is_told_in_their_words() -> None:
    partitions = [Partition(p.id, p.task, p.X, p.y * 1e39) for p in make_partitions(6, "squared")]
    with pytest.raises(DataError, match="models must stay finite in float32"):
        run_in_threads(options(), stored(partitions))


class Patient(Partition):
    """A partition whose declaration waits for an event."""

    def declaration(self) -> Declaration:
        assert go_on.wait(120.0)
        return super().declaration()


go_on = threading.Event()


def test_nobody_else_may_take_part() -> None:
    partitions = [Patient(p.id, p.task, p.X, p.y) for p in make_partitions(6, "squared")]
    strangers: list[threading.Thread] = []
    refusals: list[BaseException] = []

    def come(host: str, port: int) -> None:
        try:
            asyncio.run(Worker(WorkerOptions("w9", max_wait=0.0), []).run(host, port))
        except (AuthenticationError, WaitError) as error:
            refusals.append(error)
        go_on.set()

    def watch(event: ServerEvent) -> None:
        if isinstance(event, Listening):
            strangers.append(threading.Thread(target=come, args=(event.host, event.port)))
            strangers[0].start()

    record, _ = run_in_threads(options(), stored(partitions), watch)
    strangers[0].join()
    assert isinstance(refusals[0], AuthenticationError)
    assert record.plan.placement.workers == ("w0", "w1", "w2")


INTERRUPTED = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
from support.clusters import stored_at
from support.problems import make_partitions, make_settings, run_options
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.launch.threads import run_in_threads

def interrupt(event):
    if isinstance(event, RoundRecord) and event.round == 3:
        os.kill(os.getpid(), signal.SIGINT)

options = run_options(settings=make_settings(rounds=10**6), workers=3)
try:
    run_in_threads(options, stored_at(Placement.cyclic(3, 6, 2), make_partitions(6, "squared")), interrupt)
except KeyboardInterrupt:
    print("interrupted", [thread.name for thread in threading.enumerate()])
"""


def test_ctrl_c_ends_the_run_and_leaves_nothing(request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", INTERRUPTED]
    ended = subprocess.run(
        [*command, str(request.config.rootpath / "tests")], capture_output=True, text=True, timeout=300
    )
    assert ended.stdout == "interrupted ['MainThread']\n"
    assert "ResourceWarning" not in ended.stderr
    assert ended.returncode == 0


def test_workers_may_hold_nothing() -> None:
    only = make_partitions(1, "squared")
    record, models = run_in_threads(options(), {"w0": only, "w1": only, "w2": []})
    assert record.plan.placement.stored == ((0,), (0,), ())
    np.testing.assert_array_equal(models.coef_, train(only, options().settings).models.coef_)
