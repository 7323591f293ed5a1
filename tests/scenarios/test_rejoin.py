"""Workers lose their connection, come back, or come later: the models are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from support.clusters import Cluster, stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy

from asyncdmtl.data.held_back import hold_back
from asyncdmtl.errors import LinkError, PeerError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.linear import LinearWorkerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.training import Trained, train
from asyncdmtl.net import event_loop
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.server.events import IncidentNoted, Joined, Planned, Waiting
from asyncdmtl.server.records import RoundRecord, RunRecord
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

PARTITIONS = make_partitions(6, "squared", features=60)
SETTINGS = make_settings(rounds=20, dtype="float64")
TWIN = train(PARTITIONS, SETTINGS)
OWN = stored_at(HOMOGENEOUS, PARTITIONS)


options = partial(run_options, settings=SETTINGS)


@pytest.fixture(autouse=True)
def _all_work_is_done_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do all work in threads, so that tests can delay it without blocking the event loop."""
    monkeypatch.setattr(event_loop, "QUICK_SECONDS", 0.0)


def check(record: RunRecord, models: Iterable[TaskModels]) -> None:
    """Check that the run ended with the models of an undisturbed run."""
    for found in models:
        expected = TWIN.models.of([TWIN.models.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()
        assert found.intercept_.tobytes() == expected.intercept_.tobytes()
    assert [entry.round for entry in record.rounds] == list(range(SETTINGS.rounds))
    assert [entry.objective for entry in record.rounds] == list(TWIN.objectives)


def at_round(monkeypatch: pytest.MonkeyPatch, worker: str, round_: int, what: Callable[[], object]) -> None:
    """Call `what` once a worker has computed a round for the first time, before it sends it."""
    compute, steps = CodedWorkerSide.compute, [0]
    loop = asyncio.get_running_loop()

    def watched(side: CodedWorkerSide) -> Upload:
        sent = compute(side)
        if side.plan.placement.workers[side.worker] == worker:
            if steps[0] == round_:
                happened = threading.Event()

                def happen() -> None:
                    what()
                    happened.set()

                loop.call_soon_threadsafe(happen)
                happened.wait()
            steps[0] += 1
        return sent

    monkeypatch.setattr(CodedWorkerSide, "compute", watched)


class Network:
    """A cluster with a proxy between each worker and the server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.proxies: dict[str, Proxy] = {}
        self.workers: dict[str, asyncio.Task[TaskModels]] = {}
        self._stack = AsyncExitStack()

    async def join(self, name: str, **changes: Any) -> asyncio.Task[TaskModels]:
        self.proxies[name] = proxy = Proxy(self.cluster.address)
        await self._stack.enter_async_context(proxy.running())
        worker = Worker(WorkerOptions(name, **changes), OWN.get(name, PARTITIONS))
        self.workers[name] = task = asyncio.create_task(worker.run(*proxy.address))
        return task

    async def end(self) -> RunRecord:
        record = await self.cluster.server
        check(record, await asyncio.gather(*self.workers.values()))
        return record

    async def close(self) -> None:
        for task in self.workers.values():
            task.cancel()
        await asyncio.gather(*self.workers.values(), return_exceptions=True)
        await self._stack.aclose()


@asynccontextmanager
async def network(**changes: Any) -> AsyncIterator[Network]:
    async with asyncio.timeout(60), Cluster(options(**changes)) as cluster:
        made = Network(cluster)
        try:
            yield made
        finally:
            await made.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("round_", [0, 5, SETTINGS.rounds - 1])
async def test_a_worker_whose_connection_is_cut_comes_back(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, round_: int
) -> None:
    async with network(strategy=strategy) as net:
        at_round(monkeypatch, "w1", round_, lambda: net.proxies["w1"].cut())
        for name in OWN:
            await net.join(name)
        record = await net.end()
    assert net.proxies["w1"].connected == 2
    assert {incident.worker for incident in record.incidents} == {"w1"}
    assert "w1" in record.plan.placement.workers
    (back,) = (event for event in net.cluster.events if isinstance(event, Joined) and event.again)
    assert back.worker == "w1"


async def test_over_the_reals_a_worker_comes_back_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(rounds=20, dtype="float64", accelerated=False)
    async with network(strategy="linear", settings=settings) as net:
        compute, steps = LinearWorkerSide.compute, [0]
        loop = asyncio.get_running_loop()

        def watched(side: LinearWorkerSide) -> Upload:
            steps[0] += side.worker == 1
            if steps[0] == 5:
                loop.call_soon_threadsafe(net.proxies["w1"].cut)
            return compute(side)

        monkeypatch.setattr(LinearWorkerSide, "compute", watched)
        workers = [await net.join(name) for name in OWN]
        record = await net.cluster.server
        models = await asyncio.gather(*workers)
    assert "w1" in {incident.worker for incident in record.incidents}
    twin = train(PARTITIONS, settings).models
    for found in models:
        assert abs(found.coef_ - twin.coef_).max() < 1e-9


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_all_connections_may_be_cut_at_once(monkeypatch: pytest.MonkeyPatch, strategy: Any) -> None:
    async with network(strategy=strategy) as net:

        def cut() -> None:
            for proxy in net.proxies.values():
                proxy.cut()

        at_round(monkeypatch, "w1", 5, cut)
        for name in OWN:
            await net.join(name)
        record = await net.end()
    assert {incident.worker for incident in record.incidents} - {""} == set(OWN)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("round_", [3, SETTINGS.rounds - 1])
async def test_the_only_worker_may_lose_a_downlink(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, round_: int
) -> None:
    async with network(workers=1, strategy=strategy) as net:
        cut_down = [False]

        def drop(data: bytes) -> bytes:
            if cut_down[0]:
                cut_down[0] = False
                net.proxies["all"].cut()
                return b""
            return data

        def arm() -> None:
            cut_down[0] = True

        at_round(monkeypatch, "all", round_, arm)
        await net.join("all")
        net.proxies["all"].down = drop
        record = await net.end()
    assert net.proxies["all"].connected == 2
    assert record.incidents[0].worker == "all"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["w1", "late"])
async def test_a_worker_may_come_later(monkeypatch: pytest.MonkeyPatch, strategy: Any, name: str) -> None:
    first = ("w0", "w2", "w3", "w4", "w5")
    async with network(workers=5, strategy=strategy) as net:
        joined: list[asyncio.Task[object]] = []
        joining = asyncio.Event()
        release = threading.Event()
        at_round(monkeypatch, "w0", 4, joining.set)
        compute = CodedWorkerSide.compute

        def held(side: CodedWorkerSide) -> Upload:
            # The others wait for the latecomer, which might otherwise come too late.
            if joining.is_set() and side.plan.placement.workers[side.worker] == "w0":
                release.wait()
            return compute(side)

        monkeypatch.setattr(CodedWorkerSide, "compute", held)
        for worker in first:
            await net.join(worker)
        await joining.wait()
        joined.append(await net.join(name))
        await net.cluster.event(Joined, worker=name)
        release.set()
        record = await net.end()
    assert record.incidents == ()
    assert name in record.plan.placement.workers
    plans = [event for event in net.cluster.events if isinstance(event, Planned)]
    assert [name in plan.workers for plan in plans] == [False, True]
    assert 4 <= plans[1].round <= 7
    states = {
        entry.kind: entry.messages
        for entry in record.ledger.entries()
        if entry.kind in ("snapshot", "restore")
    }
    # The state comes from a worker, unless the server has it itself.
    assert states == ({"restore": 1} if strategy == "personal" else {"snapshot": 1, "restore": 1})


async def test_the_run_waits_for_a_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = asyncio.Event()
    async with network(workers=2) as net:
        at_round(monkeypatch, "only", 5, lost.set)
        monkeypatch.setitem(OWN, "most", PARTITIONS[:5])
        monkeypatch.setitem(OWN, "only", PARTITIONS[4:])
        monkeypatch.setitem(OWN, "other", PARTITIONS[5:])
        await net.join("most")
        leaving = await net.join("only")
        await lost.wait()
        leaving.cancel()
        waiting = await net.cluster.event(Waiting)
        assert waiting.partitions == ("p5",)
        del net.workers["only"]
        await net.join("other")
        record = await net.end()
    assert record.plan.placement.workers == ("most", "other")


async def test_a_replacement_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = asyncio.Event()
    async with network(workers=2, rejoin_timeout=0.3) as net:
        at_round(monkeypatch, "w1", 5, lost.set)
        monkeypatch.setitem(OWN, "w0", PARTITIONS[:5])
        monkeypatch.setitem(OWN, "w1", PARTITIONS[5:])
        other, leaving = await net.join("w0"), await net.join("w1")
        await lost.wait()
        leaving.cancel()
        with pytest.raises(LinkError, match=r"who holds the partitions \['p5'\]: worker 'w1' held \['p5'\]"):
            await net.cluster.server
        with pytest.raises(PeerError, match="p5"):
            await other


async def test_an_unplugged_worker_comes_back_when_its_old_connection_has_fallen_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with network(silence_timeout=0.6) as net:
        at_round(monkeypatch, "w1", 5, lambda: net.proxies["w1"].passing.clear())
        for name in OWN:
            # The worker notices the loss before the server, which then refuses it as already joined.
            await net.join(name, silence_timeout=0.2 if name == "w1" else 10.0)
        await net.cluster.event(IncidentNoted, worker="w1")
        net.proxies["w1"].passing.set()
        record = await net.end()
    assert "nothing was heard" in record.incidents[0].reason


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_corrupted_bytes_reach_no_model(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, direction: str
) -> None:
    async with network(strategy=strategy) as net:
        sent = [0]

        def corrupt(data: bytes) -> bytes:
            # Flips a bit now and then, anywhere: in lengths, heads, coded vectors, states, heartbeats.
            changed = bytearray(data)
            for place in range(-sent[0] % 9001, len(data), 9001):
                changed[place] ^= 1 << (sent[0] + place) % 8
            sent[0] += len(data)
            return bytes(changed)

        for name in OWN:
            await net.join(name)
        await net.cluster.event(RoundRecord, round=0)
        setattr(net.proxies["w1"], direction, corrupt)
        await net.end()


def few_rounds(monkeypatch: pytest.MonkeyPatch, update: str) -> tuple[Settings, Trained]:
    """Workers store small partitions, keep rows of them for tests, and train in few rounds; and the twin."""
    choice: dict[str, Any] = {"coupling": "auto", "strength": None} if update == "statistics" else {}
    if update == "candidates":
        update, choice = "newton", {"coupling": "mean-regularised", "strength": None}
    settings = make_settings(update=update, rounds=4, dtype="float64", folds=2, test_fraction=0.3, **choice)
    partitions = make_partitions(6, "squared", features=3)
    for name, own in stored_at(HOMOGENEOUS, partitions).items():
        monkeypatch.setitem(OWN, name, own)
    monkeypatch.setitem(OWN, "late", partitions)
    kept = [hold_back(partition, 0.3, settings.seed)[0] for partition in partitions]
    return settings, train([part for part in kept if isinstance(part, Partition)], settings)


async def check_few_rounds(net: Network, twin: Trained) -> RunRecord:
    """That a run ended as its twin: models, objectives, what was chosen, and scores of all test rows."""
    record = await net.cluster.server
    for found in await asyncio.gather(*net.workers.values()):
        expected = twin.models.of([twin.models.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()
    assert [entry.objective for entry in record.rounds] == list(twin.objectives)
    assert (record.outcome is None) == (twin.outcome is None)
    if record.outcome is not None and twin.outcome is not None:
        assert str(record.outcome.as_dict()) == str(twin.outcome.as_dict())
    assert set(record.tests) == {info.id for info in record.problem.infos if info.held} != set()
    compared = record.problem.settings.update in ("statistics", "newton")
    kinds = {"coupled", "single_task", "pooled"} if compared else {"coupled"}
    assert all(set(sums.kinds) == kinds for sums in record.tests.values())
    return record


@pytest.mark.parametrize(
    ("update", "strategy", "round_"),
    [
        ("statistics", "relay", 0),
        ("statistics", "personal", 0),
        ("newton", "central", 2),
        ("quasi-newton", "personal", 2),
        ("quasi-newton", "relay", 3),
        ("model", "personal", 1),
        ("candidates", "relay", 2),
    ],
)
async def test_whatever_the_update_a_worker_comes_back(
    monkeypatch: pytest.MonkeyPatch, update: str, strategy: str, round_: int
) -> None:
    settings, twin = few_rounds(monkeypatch, update)
    async with network(strategy=strategy, settings=settings) as net:
        at_round(monkeypatch, "w1", round_, lambda: net.proxies["w1"].cut())
        for name in HOMOGENEOUS.workers:
            await net.join(name)
        await check_few_rounds(net, twin)
    assert net.proxies["w1"].connected == 2


@pytest.mark.parametrize(
    ("update", "strategy"),
    [("statistics", "relay"), ("statistics", "central"), ("statistics", "personal"), ("newton", "relay"),
     ("quasi-newton", "central"), ("model", "relay"), ("candidates", "relay"), ("candidates", "central")],
)  # fmt: skip
async def test_whatever_the_update_a_worker_may_come_late(
    monkeypatch: pytest.MonkeyPatch, update: str, strategy: str
) -> None:
    settings, twin = few_rounds(monkeypatch, update)
    async with network(workers=6, strategy=strategy, settings=settings) as net:
        release, joining = threading.Event(), asyncio.Event()
        loop, compute = asyncio.get_running_loop(), CodedWorkerSide.compute

        def held(side: CodedWorkerSide) -> Upload:
            if side.plan.placement.workers[side.worker] == "w0":
                loop.call_soon_threadsafe(joining.set)
                release.wait()
            return compute(side)

        monkeypatch.setattr(CodedWorkerSide, "compute", held)
        for worker in HOMOGENEOUS.workers:
            await net.join(worker)
        await joining.wait()
        await net.join("late")
        await net.cluster.event(Joined, worker="late")
        # The late worker is ready when it has encoded its rows: a plan for it follows the round in progress.
        while not net.cluster.instance._membership.members["late"].ready:
            await net.cluster.instance._membership.change(None)
        release.set()
        record = await check_few_rounds(net, twin)
    assert "late" in record.plan.placement.workers
    assert record.incidents == ()
