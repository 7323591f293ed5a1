"""Streams of jobs over real connections: they are as runs of their own, and fail apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import scipy.linalg  # noqa: F401 - a worker tells of the libraries that are loaded, so that this is the first
from support.clusters import LIMIT, run_cluster
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster

from asyncdmtl.errors import LinkError, UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server import jobs as jobs_module
from asyncdmtl.server.events import Joined, Listening, Planned
from asyncdmtl.server.jobs import Job, JobOutcome, JobServer, StreamOptions
from asyncdmtl.server.records import RoundRecord, RunOptions, RunRecord
from asyncdmtl.worker.jobs import StreamOver

PARTITIONS = make_partitions(6, "squared")
PLACEMENT = Placement.cyclic(3, 6, 2)
HELD = {
    worker: [PARTITIONS[n] for n in held]
    for worker, held in zip(PLACEMENT.workers, PLACEMENT.stored, strict=True)
}


def options(**changes: Any) -> RunOptions:
    names = {"strategy", "rejoin_timeout", "join_timeout"}
    run = {name: value for name, value in changes.items() if name in names}
    settings = make_settings(dtype="float64", **{k: v for k, v in changes.items() if k not in names})
    return run_options(**{"settings": settings, "workers": 3, **run})


def bits(models: TaskModels) -> tuple[Any, ...]:
    return models.tasks, models.coef_.tobytes(), models.intercept_.tobytes()


def vectors(record: RunRecord) -> dict[Any, int]:
    """Bytes of every kind of message but heartbeats, by worker, direction and round."""
    return {
        (entry.worker, entry.direction, entry.kind, entry.round): entry.wire
        for entry in record.ledger.entries()
        if entry.kind in ("hello", "welcome", "declare", "prepare", "ready", "uplink", "downlink", "assign")
    }


JOBS = {
    "ridge": options(coupling="ridge", strength=0.1, rounds=4),
    "trace": options(rounds=6),
    "central": options(strategy="central", rounds=3, seed=5),
}


async def test_jobs_are_as_runs_of_their_own() -> None:
    twins = {name: bits(train(PARTITIONS, each.settings).models) for name, each in JOBS.items()}
    alone = {name: (await run_cluster(each, PLACEMENT, PARTITIONS))[0] for name, each in JOBS.items()}
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        workers = [cluster.join(name, held) for name, held in HELD.items()]
        await cluster.submit(*(Job(name, each) for name, each in JOBS.items()))
        await cluster.server
        for worker in workers:
            with pytest.raises(StreamOver) as over:
                await worker
            assert (over.value.made, over.value.failed) == (3, {})
    assert [outcome.job.name for outcome in cluster.outcomes] == list(JOBS)
    for outcome in cluster.outcomes:
        assert outcome.record is not None
        assert vectors(outcome.record) == vectors(alone[outcome.job.name])
        name = outcome.job.name
        assert {bits(cluster.models[name, worker]) for worker in HELD} == {twins[name]}


async def test_jobs_share_the_workers_up_to_the_limit() -> None:
    running, most = set(), 0
    async with asyncio.timeout(LIMIT), JobCluster(in_flight=2, any_order=True) as cluster:
        for name, held in HELD.items():
            cluster.join(name, held)
        jobs = [Job(f"j{i}", options(rounds=20)) for i in range(4)]
        await cluster.submit(*jobs)
        while len(cluster.outcomes) < 4:
            await cluster.change()
            begun = {job.name for job in jobs if cluster.of_job(job.name)}
            running = begun - {outcome.job.name for outcome in cluster.outcomes}
            most = max(most, len(running))
    # No job waits for the end of the one before it, and never are there three.
    assert most == 2


async def test_outcomes_are_told_in_order_unless_any_order_will_do() -> None:
    told = {}
    for any_order in (False, True):
        async with asyncio.timeout(LIMIT), JobCluster(any_order=any_order) as cluster:
            for name, held in HELD.items():
                cluster.join(name, held)
            await cluster.submit(Job("long", options(rounds=12)), Job("short", options(rounds=1)))
            await cluster.server
        told[any_order] = [outcome.job.name for outcome in cluster.outcomes]
    assert told == {False: ["long", "short"], True: ["short", "long"]}


async def test_a_job_that_cannot_start_ends_at_once_and_alone() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        workers = [cluster.join(name, held) for name, held in HELD.items()]
        # Targets of squared loss are no classes.
        bad = Job("bad", options(loss="logistic", strength=0.1))
        await cluster.submit(bad, Job("good", options(rounds=2)))
        await cluster.server
        for worker in workers:
            with pytest.raises(StreamOver) as over:
                await worker
            assert list(over.value.failed) == ["bad"]
    failed, good = cluster.outcomes
    assert "too few workers can take part" in str(failed.error)
    assert good.record is not None
    assert "good" in {job for job, _ in cluster.models}


async def test_a_column_that_some_worker_lacks_fails_its_job_only() -> None:
    other = make_partitions(6, "squared", seed=9)
    by_id = {part.id: part for part in other}
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        for name, held in HELD.items():
            cluster.join(name, held, targets={"dose": [by_id[part.id] for part in held]})
        jobs = [Job("dose", options(rounds=2), "dose"), Job("none", options(), "height")]
        await cluster.submit(*jobs, Job("own", options()))
        await cluster.server
    dose, none, own = cluster.outcomes
    assert dose.record is not None
    assert own.record is not None
    assert "target must be a column, got 'height'" in str(none.error)
    twin = bits(train(other, jobs[0].options.settings).models)
    assert {bits(cluster.models["dose", name]) for name in HELD} == {twin}


async def test_a_lost_worker_ends_no_job_that_others_can_make() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        workers = [cluster.join(name, held) for name, held in HELD.items()]
        jobs = [Job(f"j{i}", options(rounds=25)) for i in range(2)]
        await cluster.submit(*jobs)
        while not all(any(isinstance(e, RoundRecord) for e in cluster.of_job(job.name)) for job in jobs):
            await cluster.change()
        workers[0].cancel()
        await asyncio.gather(workers[0], return_exceptions=True)
        await cluster.server
        await asyncio.gather(*workers, return_exceptions=True)
    twin = bits(train(PARTITIONS, jobs[0].options.settings).models)
    for outcome in cluster.outcomes:
        assert outcome.record is not None
        assert outcome.record.incidents
        assert {bits(cluster.models[outcome.job.name, name]) for name in list(HELD)[1:]} == {twin}


async def test_a_worker_that_comes_late_is_called_to_jobs_in_progress() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        await cluster.submit(Job("early", options(rounds=2)))
        names = list(HELD)
        for name in names[:2]:
            cluster.join(name, HELD[name])
        while sum(isinstance(e, Joined) for e in cluster.of_job("early")) < 2:
            await cluster.change()
        assert not any(isinstance(e, Planned) for e in cluster.of_job("early"))
        cluster.join(names[2], HELD[names[2]])
        await cluster.server
    assert cluster.outcomes[0].record is not None


async def test_submission_waits_while_too_many_jobs_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MOST_WAITING", 1)
    async with asyncio.timeout(LIMIT), JobCluster(in_flight=1) as cluster:
        jobs = [Job(f"j{i}", options(rounds=1)) for i in range(4)]
        submitted = asyncio.create_task(cluster.submit(*jobs))
        await cluster.instance.submit(Job("another", options(rounds=1)))
        assert not submitted.done()
        for name, held in HELD.items():
            cluster.join(name, held)
        await submitted
        await cluster.server
    assert len(cluster.outcomes) == 5


async def test_a_stopped_stream_tells_its_workers(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        workers = [cluster.join(name, held, max_wait=0.1) for name, held in HELD.items()]
        await cluster.submit(Job("endless", options(rounds=100_000)), end=False)
        while not any(isinstance(e, RoundRecord) for e in cluster.of_job("endless")):
            await cluster.change()
        cluster.server.cancel()
        ends = await asyncio.gather(cluster.server, *workers, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    # A worker that has time left tries again, so that its log tells what the server said.
    for name, end in zip(HELD, ends[1:], strict=True):
        logged = [text for text in caplog.messages if text.startswith(f"worker {name}: ")]
        assert any("the server was stopped" in text for text in [str(end), *logged]), ends


def test_bad_jobs_are_named(tmp_path: Path) -> None:
    run = options()
    for name in ("", ".hidden", "a/b", "x" * 65, "ö"):
        with pytest.raises(UsageError, match="name of a job must be"):
            Job(name, run)
    with pytest.raises(UsageError, match="target of a job"):
        Job("a", run, "x" * 1001)
    kept = run_options(settings=run.settings, workers=3, checkpoint=tmp_path)
    with pytest.raises(UsageError, match="--checkpoint is for a run of its own"):
        Job("a", kept)
    with pytest.raises(UsageError, match="--in-flight must lie between 1 and 64"):
        StreamOptions(in_flight=0)


async def test_what_a_stream_cannot_do_is_told_as_it_is() -> None:
    def told(outcome: JobOutcome) -> None:
        raise AssertionError(outcome)

    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    server = JobServer(StreamOptions(), lambda event: None, told)
    async with asyncio.timeout(LIMIT), taken:
        with pytest.raises(LinkError, match="cannot listen"):
            await server.make_all([Job("a", options())], "127.0.0.1", port)
        twice = JobServer(StreamOptions(), lambda event: None, told)
        with pytest.raises(UsageError, match="no other job"):
            await twice.make_all([Job("a", options()), Job("a", options())], "127.0.0.1", 0)


async def test_an_outcome_that_cannot_be_told_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(cluster: JobCluster, outcome: JobOutcome) -> None:
        raise BrokenPipeError(outcome.job.name)

    monkeypatch.setattr(JobCluster, "_tell", told)
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        workers = [cluster.join(name, held, max_wait=0.1) for name, held in HELD.items()]
        await cluster.submit(Job("a", options(rounds=1)), end=False)
        with pytest.raises(BrokenPipeError, match="a"):
            await cluster.server
        ends = await asyncio.gather(*workers, return_exceptions=True)
    assert all("the server was stopped" in str(end) for end in ends)


async def test_names_of_jobs_are_their_own() -> None:
    async with JobCluster() as cluster:
        assert isinstance(cluster.events[0], Listening)
        await cluster.submit(Job("a", options()), end=False)
        with pytest.raises(UsageError, match="no other job"):
            await cluster.instance.submit(Job("a", options()))
