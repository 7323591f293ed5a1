"""If claims of holders about a partition differ, the majority is believed, and the run goes on with it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.clusters import Cluster, stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.errors import DataError, PeerError, UsageError
from asyncdmtl.learning.tasks import Declaration, Partition
from asyncdmtl.learning.training import train
from asyncdmtl.server.agreement import Dissent, check_machine, dissenters
from asyncdmtl.server.events import Joined, Refused

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings()


options = partial(run_options, workers=7)


@pytest.mark.parametrize(
    ("claims", "odd"),
    [
        ({}, {}),
        ({"w0": {"p": 1}, "w1": {"p": 1}, "w2": {"q": 5}}, {}),
        ({"w0": {"p": 2}, "w1": {"p": 1}, "w2": {"p": 1}}, {"w0": ("p", ("w1", "w2"))}),
        ({"w10": {"p": 2}, "w2": {"p": 1}}, {"w10": ("p", ("w2",), True)}),
        # w0 is outvoted at q, so that it is not believed at p, where it would come first.
        (
            {"w0": {"p": 2, "q": 2}, "w1": {"p": 1}, "w2": {"q": 1}, "w3": {"q": 1}},
            {"w0": ("q", ("w2", "w3"))},
        ),
        (
            {"w0": {"p": 1}, "w1": {"p": 2}, "w2": {"p": 2}, "w3": {"p": 1}},
            {"w1": ("p", ("w0", "w3"), True), "w2": ("p", ("w0", "w3"), True)},
        ),
        ({"w0": {"p": {"a": [1]}}, "w1": {"p": {"a": [1]}}}, {}),
    ],
)
def test_most_holders_are_believed_then_the_first(claims: Any, odd: Any) -> None:
    assert dissenters(claims) == {worker: Dissent(*what) for worker, what in odd.items()}


async def check(cluster: Cluster, workers: list[asyncio.Task[Any]]) -> None:
    """Check that the run ends with the honest workers and the models of the twin."""
    record = await cluster.server
    assert record.plan.placement.workers == HOMOGENEOUS.workers
    expected = train(PARTITIONS, SETTINGS).models
    for models in await asyncio.gather(*workers):
        assert models.coef_.tobytes() == expected.coef_.tobytes()


async def test_the_first_to_declare_is_not_believed_against_most() -> None:
    async with Cluster(options(workers=6)) as cluster:
        liar = cluster.join("a", [replace(PARTITIONS[0], y=PARTITIONS[0].y + 1), *PARTITIONS[1:]])
        await cluster.event(Joined, worker="a")
        own = stored_at(HOMOGENEOUS, PARTITIONS)
        workers = [cluster.join(name, parts) for name, parts in own.items()]
        with pytest.raises(
            PeerError, match="partition 'p0' of worker 'a' must be the same data as at"
        ) as told:
            await liar
        assert told.value.exit_code == UsageError.exit_code
        refused = await cluster.event(Refused, worker="a")
        believed = refused.reason.partition("must be the same data as at ")[2].partition(" (")[0].split(", ")
        # The run starts with six of the seven workers, one of which may be missing here.
        assert len(believed) >= 2
        assert set(believed) <= {"w0", "w1", "w2"}
        await check(cluster, workers)


class Waiting:
    """A partition whose encoding waits for an event."""

    def __init__(self, stored: Partition, encoded: Partition, time: threading.Event) -> None:
        self.id, self.task, self.rows = stored.id, stored.task, stored.rows
        self.targets, self.take = stored.targets, stored.take
        self._stored, self._encoded, self._time = stored, encoded, time

    def declaration(self) -> Declaration:
        return self._stored.declaration()

    def encoded(self, encoding: Encoding) -> Partition:
        self._time.wait(30)
        return self._encoded


async def test_the_first_to_be_ready_is_not_believed_against_most() -> None:
    time, now = threading.Event(), threading.Event()
    now.set()
    # The rows of six workers wait in a thread each, and the server needs some, too.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))
    async with Cluster(options()) as cluster:
        odd = replace(PARTITIONS[0], X=2 * PARTITIONS[0].X)
        liar = cluster.join("a", [Waiting(PARTITIONS[0], odd, now)])
        own = stored_at(HOMOGENEOUS, [Waiting(part, part, time) for part in PARTITIONS])
        workers = [cluster.join(name, parts) for name, parts in own.items()]
        await cluster.event(Joined, worker="w5")
        membership = cluster.instance._membership
        while len(membership.members) < 7 or not membership.members["a"].ready:
            await membership.change(1.0)
        time.set()
        with pytest.raises(
            PeerError, match="partition 'p0' of worker 'a' must be encoded as at its other holders"
        ):
            await liar
        await check(cluster, workers)


async def test_partitions_that_do_not_fit_each_other_are_named_with_their_holders() -> None:

    def raw(name: str, *columns: str) -> RawPartition:
        return RawPartition(name, "t", {column: np.arange(3.0) for column in columns}, np.arange(3.0))

    async with Cluster(options(workers=3)) as cluster:
        usual, odd = raw("p0", "age", "dose"), raw("p1", "age")
        workers = [cluster.join("w0", [usual]), cluster.join("w1", [usual, odd]), cluster.join("w2", [odd])]
        with pytest.raises(
            DataError, match=r"column 'dose' must be in every partition; in 'p1' \('p1' is at w1, w2\)"
        ):
            await cluster.server
        for worker in workers:
            with pytest.raises(PeerError, match="'p1' is at w1, w2"):
                await worker


class Elsewhere:
    """A stand-in for another machine with other arithmetic."""

    @staticmethod
    def here(kind: str) -> Machine:
        here = Machine.here(kind)
        return Machine(dict(here.digests) | {"sums": bytes(16)}, dict(here.about) | {"NumPy": "1.0"})


async def test_a_machine_that_computes_other_bits_is_refused_at_joining(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Cluster(options(workers=6)) as cluster:
        with monkeypatch.context() as patched:
            patched.setattr("asyncdmtl.worker.joining.Machine", Elsewhere)
            with pytest.raises(PeerError, match="arithmetic of worker 'odd'") as told:
                await cluster.join("odd", PARTITIONS[:1])
        assert f"other bits in sums (NumPy 1.0 there and {np.__version__} here)" in str(told.value)
        assert told.value.exit_code == UsageError.exit_code
        await cluster.event(Refused)
        own = stored_at(HOMOGENEOUS, PARTITIONS)
        await check(cluster, [cluster.join(name, parts) for name, parts in own.items()])


@pytest.mark.parametrize(
    ("arithmetic", "advice"),
    [("reproducible", "python -m asyncdmtl.arithmetic"), ("fast", "--arithmetic reproducible")],
)
def test_a_machine_is_told_what_to_do(arithmetic: str, advice: str) -> None:
    check_machine("w0", Machine.here(arithmetic), arithmetic)
    with pytest.raises(UsageError, match=advice):
        check_machine("w0", Machine({}, {}), arithmetic)


def site(*rows: tuple[float, float]) -> RawPartition:
    """The file that every site calls data.csv."""
    x, y = np.array(rows).T
    return RawPartition("data/t", "t", {"x": x, "z": x + 1}, y)


async def test_files_of_one_name_with_other_rows_end_the_run() -> None:
    advice = r"partition 'data/t' of worker 'w1' has other rows .* at w0: --site or another file name"
    async with Cluster(options(workers=2)) as cluster:
        workers = [
            cluster.join("w0", [site((1, 2), (3, 4))]),
            cluster.join("w1", [site((5, 6), (7, 8), (9, 9))]),
        ]
        with pytest.raises(DataError, match=advice):
            await cluster.server
        for worker in workers:
            with pytest.raises(PeerError, match=advice):
                await worker


@pytest.mark.parametrize(
    ("copy", "difference"),
    [
        (site((3, 4), (1, 2)), "it has the same rows in another order"),
        (site((1, 2), (3, 4.000000001)), "it differs in the column 'target' in 1 of 2 rows"),
    ],
)
async def test_copies_that_differ_are_told_how(copy: RawPartition, difference: str) -> None:
    async with Cluster(options(workers=2)) as cluster:
        workers = [cluster.join("w0", [site((1, 2), (3, 4))]), cluster.join("w1", [copy])]
        told = f"must be the same data as its copy at w0, but {difference}"
        with pytest.raises(DataError, match=told):
            await cluster.server
        for worker in workers:
            with pytest.raises(PeerError, match=told):
                await worker


async def test_copies_may_have_their_columns_in_another_order() -> None:
    one = RawPartition("p0", "t", {"a": np.arange(3.0), "b": np.ones(3) * [1, 2, 4]}, np.arange(3.0))
    other = replace(one, columns=dict(reversed(list(one.columns.items()))))
    found = []
    for names in (("w0", "w1"), ("w1", "w0")):
        async with Cluster(options(workers=2)) as cluster:
            parts = {"w0": one, "w1": other}
            workers = [cluster.join(name, [parts[name]]) for name in names]
            await cluster.server
            found += [(await worker).coef_.tobytes() for worker in workers]
    # The order of the features follows from the names of the workers, not from the order of joining.
    assert len(set(found)) == 1
