"""Runs whose server and relays are blind: models as without, and nothing of the data at either."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.blind_runs import SECRET, SETTINGS, Tap
from support.clusters import stored_at
from support.problems import make_partitions, run_options
from support.raw_partitions import encoding_of
from support.secrecy import STAYING, WORDS, Seen, heads_and_opaque, memory_of, raw
from support.trees import PATIENCE, PLACEMENT, SITES, Tree, grow, restart, trees

from asyncdmtl.blinding.agreement import SecretProofs
from asyncdmtl.errors import PeerError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.strategies import strategy_of
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import Trained, train
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

PARTITIONS = make_partitions(6, "squared", features=9)
EARLY = replace(SETTINGS, rounds=100, tolerance=0.1)


def options(settings: Settings = SETTINGS, **changes: Any) -> Any:
    return run_options(settings=settings, workers=5, blind=True, **changes)


def check(models: Iterable[TaskModels], twin: Trained) -> None:
    assert {found.coef_.tobytes() for found in models} == {twin.models.coef_.tobytes()}


async def models_of(tree: Tree) -> list[TaskModels]:
    return [await tree.tasks[name] for name in SITES]


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize("settings", [SETTINGS, EARLY], ids=["rounds", "tolerance"])
async def test_models_are_those_of_the_twin(strategy: str, settings: Settings) -> None:
    twin = train(PARTITIONS, settings)
    async with trees(options(settings, strategy=strategy), group_secret=SECRET) as (cluster, tree):
        await grow(tree)
        record = await cluster.server
        check(await models_of(tree), twin)
        await tree.tasks["north"]
    assert [entry.round for entry in record.rounds] == list(range(len(twin.objectives)))
    assert not record.incidents
    if settings is EARLY:
        assert len(record.rounds) < 100


async def test_rows_have_as_many_bytes_as_without() -> None:
    """On the links above relays, and on those below them."""
    each = []
    for blind in (True, False):
        group: dict[str, Any] = {"group_secret": SECRET} if blind else {}
        made = replace(options(), blind=blind)
        async with trees(made, **group) as (cluster, tree):
            await grow(tree)
            record = await cluster.server
            await models_of(tree)
            await tree.tasks["north"]
        ledgers = [record.ledger, tree.relays["north"].below, tree.relays["north"].up]
        each.append(
            [ledger.kinds()[way] for ledger in ledgers for way in (("up", "uplink"), ("down", "downlink"))]
        )
    assert each[0] == each[1]


async def test_a_relay_may_be_behind_a_relay() -> None:
    async with trees(options(EARLY), group_secret=SECRET) as (cluster, tree):
        await tree.relay("outer", 3)
        await tree.relay("inner", 2, "outer")
        for name, parent in (("a", "inner"), ("b", "inner"), ("c", "outer"), ("d", ""), ("e", "")):
            tree.worker(name, parent)
        record = await cluster.server
        check(await models_of(tree), train(PARTITIONS, EARLY))
    assert set(record.plan.placement.workers) == {"outer", "d", "e"}


@pytest.mark.parametrize("lost", [["a"], ["north", "south"]], ids=["worker", "relays"])
async def test_what_is_lost_comes_back_and_is_given_the_sealed_state(lost: list[str]) -> None:
    settings = replace(SETTINGS, rounds=9)
    made = options(settings, rejoin_timeout=PATIENCE)
    async with trees(made, group_secret=SECRET) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=3)
        await restart(tree, lost)
        record = await cluster.server
        check(await models_of(tree), train(PARTITIONS, settings))
    assert len(record.rounds) == 9
    assert record.incidents


async def test_wrong_rows_of_a_node_change_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node sends wrong rows once: workers notice, although neither its relay nor the server can."""
    compute, wrong = CodedWorkerSide.compute, list[int]()

    def flipped(side: CodedWorkerSide) -> Upload:
        upload = compute(side)
        # At b, whose plan is that of relay north.
        name = side.plan.placement.workers[side.worker]
        if name != "b" or wrong or side.place[1] < 2 or not upload.size:
            return upload
        wrong.append(side.place[1])
        rows = upload.rows[0].copy()
        rows.reshape(-1)[5] ^= 1
        return replace(upload, rows=(rows, *upload.rows[1:]))

    monkeypatch.setattr(CodedWorkerSide, "compute", flipped)
    async with trees(options(rejoin_timeout=PATIENCE), group_secret=SECRET) as (cluster, tree):
        await grow(tree)
        record = await cluster.server
        check(await models_of(tree), train(PARTITIONS, SETTINGS))
    assert wrong == [2]
    assert strategy_of(record.plan).name == "uncoded"
    assert record.incidents


async def test_workers_behind_a_relay_cannot_agree_on_a_key() -> None:
    async with trees(options(), group_proofs=SecretProofs(SECRET)) as (_, tree):
        await tree.relay("north", 2)
        tree.worker("a")
        with pytest.raises(PeerError, match="behind a relay give --group-secret-file alone"):
            await tree.tasks["a"]


async def test_nothing_that_depends_on_data_reaches_a_relay_or_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(SETTINGS, loss="logistic", rounds=5, tolerance=1e-12, standardise=True)
    shapes = []
    for seed in (0, 1):
        partitions, seen = raw(seed), Seen(monkeypatch)
        made = options(settings)
        async with trees(made, partitions=partitions, group_secret=SECRET) as (cluster, tree):
            above, taps = Tap(cluster.address), dict[str, Tap]()
            async with above.running():
                tree.add_address("above", above.address)
                await tree.relay("north", 2, "above")
                await tree.relay("south", 2)
                for name in ("a", "b"):
                    taps[name] = Tap(tree.address("north"))
                    await tree.stack.enter_async_context(taps[name].running())
                    tree.add_address(f"tap {name}", taps[name].address)
                    tree.worker(name, f"tap {name}", alone=True)
                for name in ("c", "d", "e"):
                    tree.worker(name)
                await cluster.server
                models = await models_of(tree)
        encoding = encoding_of(*partitions, loss="logistic")
        check(models, train([part.encoded(encoding) for part in partitions], settings))
        seen.add_columns(partitions)
        sent = {name: b"".join(tap.sent) for name, tap in (("north", above), *taps.items())}
        everything = b"".join(sent.values())
        assert seen.found_in(everything) == set()
        assert not [word for word in WORDS if word in everything]
        read = {name: heads_and_opaque(one) for name, one in sent.items()}
        shapes.append({name: heads for name, (heads, _) in read.items()})
        for _, opaque in read.values():
            counts = np.bincount(np.frombuffer(opaque, np.uint8), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6
        monkeypatch.undo()
    assert shapes[0] == shapes[1]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs the memory of processes as a file")
async def test_the_memory_of_a_relay_has_nothing_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, partitions = Seen(monkeypatch), raw(0)
    settings = replace(SETTINGS, loss="logistic", rounds=8, tolerance=1e-12, standardise=True)
    async with trees(options(settings), partitions=partitions, group_secret=SECRET) as (cluster, tree):
        host, port = cluster.address
        words = ["--name=north", f"--connect={host}:{port}", "--listen=127.0.0.1:0", "--workers=2", "--json"]
        relay = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STAYING.format("relay"), *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert relay.stdout is not None
        try:
            listening = json.loads(await relay.stdout.readline())
            own = stored_at(PLACEMENT, partitions)
            behind = [Worker(WorkerOptions(name, group_secret=SECRET), own[name]) for name in "ab"]
            running = [asyncio.create_task(worker.run("127.0.0.1", listening["port"])) for worker in behind]
            await tree.relay("south", 2)
            for name in ("c", "d", "e"):
                tree.worker(name)
            await cluster.server
            models = await asyncio.gather(*running)
            while (line := await relay.stdout.readline()) != b"over\n":
                assert line
            memory = memory_of(relay.pid)
        finally:
            relay.kill()
            await relay.wait()
    for known in (b"north", b"p2"):
        assert known in memory
    assert not [word for word in WORDS if word in memory]
    seen.add_columns(partitions)
    seen.add(*(found.coef_ for found in models))
    assert seen.found_in(memory) == set()
