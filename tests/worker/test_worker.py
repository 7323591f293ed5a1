"""A worker in a run over real connections, with a real server or one that a test controls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.certificates import Authority
from support.clusters import Cluster
from support.pairs import LIMIT, SILENCE
from support.ports import free_port
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy
from threadpoolctl import threadpool_info, threadpool_limits

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AuthenticationError, LinkError, PeerError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.tls import server_context, worker_context
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.joining import Declare, Hello, Welcome
from asyncdmtl.server.events import Joined, Refused
from asyncdmtl.worker.observer import WorkerObserver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(dtype="float64")


def make_worker(observer: WorkerObserver | None = None, **options: Any) -> Worker:
    return Worker(WorkerOptions("all", **options), PARTITIONS, observer=observer)


def cluster(**options: Any) -> Cluster:
    """The server of a run of one worker."""
    return Cluster(run_options(**{"settings": SETTINGS, "workers": 1, **options}))


def check(models: TaskModels) -> None:
    """Check that these are the models of the one-process twin."""
    twin = train(PARTITIONS, SETTINGS).models
    assert models.tasks == twin.tasks
    assert models.coef_.tobytes() == twin.coef_.tobytes()
    assert models.intercept_.tobytes() == twin.intercept_.tobytes()


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[tuple[str, int], asyncio.Queue[Connection]]]:
    """A server's address, and the connections to it, which a test controls."""
    opened: asyncio.Queue[Connection] = asyncio.Queue()
    made: list[Connection] = []

    def note(connection: Connection) -> None:
        made.append(connection)
        opened.put_nowait(connection)

    server = await listen("127.0.0.1", 0, lambda: Connection("server", Ledger(), SILENCE, "?", note))
    try:
        yield server.sockets[0].getsockname()[:2], opened
    finally:
        server.close()
        for connection in made:
            await connection.close()


async def declared(connection: Connection) -> Declare:
    """Welcome a worker, and return its declaration."""
    await connection.receive((Hello,), *LIMIT)
    await connection.send(Welcome("run", SETTINGS.as_dict(), SILENCE), *LIMIT)
    return await connection.receive((Declare,), *LIMIT)


async def test_a_worker_makes_a_run_and_counts_what_it_sent() -> None:
    worker = make_worker()
    async with asyncio.timeout(30), cluster() as running:
        models = await worker.run(*running.address)
        record = await running.server
    check(models)
    assert (worker.state.round, worker.state.over) == (SETTINGS.rounds, True)
    assert worker.trained_with == (Encoding.empty(), SETTINGS)
    for round_ in range(SETTINGS.rounds):
        for direction in ("up", "down"):
            sent = worker.ledger.round_bytes(round_, direction)
            assert sent == record.ledger.round_bytes(round_, direction)
            assert sent > 0


async def test_a_worker_comes_back_after_its_connection_was_cut() -> None:
    async with asyncio.timeout(30), cluster() as running, Proxy(running.address).running() as proxy:

        class Cutting(WorkerObserver):
            """Aborts the connection in the middle of the first computation."""

            def before_compute(self, round_: int) -> None:
                if proxy.connected == 1:
                    loop.call_soon_threadsafe(proxy.cut)

        loop = asyncio.get_running_loop()
        worker = make_worker(observer=Cutting())
        check(await worker.run(*proxy.address))
        await running.server
    assert proxy.connected == 2
    assert worker.state.run is not None


async def test_a_worker_that_comes_back_declares_the_same_again(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as (address, opened):
        worker = make_worker()
        running = asyncio.create_task(worker.run(*address))
        first = await declared(connection := await opened.get())
        connection.abort()
        second = await declared(await opened.get())
        assert (first.partitions, first.state) == (second.partitions, second.state)
        running.cancel()
        await asyncio.wait([running])
    (warning,) = (record for record in caplog.records if "trying again" in record.getMessage())
    assert "was lost" in warning.getMessage()
    assert (vars(warning)["worker"], vars(warning)["run"]) == ("all", "run")


@pytest.mark.parametrize("may_return", [True, False])
async def test_a_worker_that_is_refused_comes_back_only_if_it_may(may_return: bool) -> None:
    async with listening() as (address, opened):
        running = asyncio.create_task(make_worker().run(*address))
        connection = await opened.get()
        await connection.receive((Hello,), *LIMIT)
        connection.worker_may_return = may_return
        await connection.fail(UsageError("--name", "must be free", "all"))
        if may_return:
            await declared(await opened.get())
            running.cancel()
            await asyncio.wait([running])
        else:
            with pytest.raises(PeerError, match="must be free") as caught:
                await running
            assert caught.value.exit_code == UsageError.exit_code


async def test_a_server_that_is_not_there_is_waited_for_up_to_a_limit() -> None:
    worker = make_worker(max_wait=0.0)
    with pytest.raises(LinkError, match=r"cannot reach a server at .* the limit set by --max-wait"):
        await worker.run("127.0.0.1", free_port())
    assert worker.state.run is None


async def test_a_worker_with_a_secret_refuses_a_server_that_asks_for_none() -> None:
    async with asyncio.timeout(30), cluster() as running:
        worker = Worker(WorkerOptions("all"), PARTITIONS, WorkerSecurity(secret=b"a secret of workers"))
        with pytest.raises(AuthenticationError, match="does not ask for the secret that it should know"):
            await worker.run(*running.address)


async def test_a_worker_speaks_tls_where_it_is_asked_to(tmp_path: Any) -> None:
    authority = Authority(tmp_path)
    security = ServerSecurity(tls=server_context(*authority.issue("127.0.0.1")))
    options = run_options(settings=SETTINGS, workers=1)
    async with asyncio.timeout(30), Cluster(options, security) as running:
        trusting = WorkerSecurity(tls=worker_context(authority.ca))
        worker = Worker(WorkerOptions("all"), PARTITIONS, trusting)
        check(await worker.run(*running.address))
    assert ("up", "tls") in worker.ledger.kinds()


async def test_an_error_of_an_observer_is_told_to_the_server_and_raised() -> None:
    class Broken(WorkerObserver):
        def on_settings(self, settings: Settings) -> None:
            raise ZeroDivisionError("of the observer")

    async with listening() as (address, opened):
        running = asyncio.create_task(make_worker(observer=Broken()).run(*address))
        connection = await opened.get()
        await connection.receive((Hello,), *LIMIT)
        await connection.send(Welcome("run", SETTINGS.as_dict(), SILENCE), *LIMIT)
        with pytest.raises(PeerError, match=r"internal error: ZeroDivisionError\('of the observer'\)"):
            await connection.receive((Declare,), *LIMIT)
        with pytest.raises(ZeroDivisionError):
            await running


async def test_a_worker_computes_in_one_thread() -> None:
    class Counting(WorkerObserver):
        def on_settings(self, settings: Settings) -> None:
            counted.append(threads())

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info()]

    counted: list[list[int]] = []
    async with listening() as (address, opened):
        with threadpool_limits(2):
            # Libraries that other tests loaded may have one thread in any case.
            before = threads()
            running = asyncio.create_task(make_worker(observer=Counting()).run(*address))
            await declared(await opened.get())
            running.cancel()
            await asyncio.wait([running])
            counted.append(threads())
    assert max(before) == 2
    assert counted == [[1] * len(before), before]


async def test_the_loser_of_a_name_is_told_so_even_if_the_server_has_ended_since() -> None:
    async with cluster(workers=2) as running:
        first = running.join("all", PARTITIONS)
        await running.event(Joined, worker="all")
        loser = running.join("all", PARTITIONS, max_wait=1.0)
        await running.event(Refused, worker="all")
        other = running.join("other", PARTITIONS[:1])
        await asyncio.gather(running.server, first, other)
        with pytest.raises(PeerError, match="--name must be unique; already joined, got 'all'"):
            await loser
