from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import pytest
from support.clusters import LIMIT, run_cluster
from support.problems import make_partitions, make_settings, run_options
from support.streams import JobCluster
from support.trees import PATIENCE, PLACEMENT, SITES, grow, parts_of, restart, trees

from asyncdmtl.errors import DisagreementError, PeerError, UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.plan import Plan
from asyncdmtl.protocol.messages.registry import Done
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.relay.relay import Relay
from asyncdmtl.report.relay_report import link_totals, report_tree
from asyncdmtl.server.peers import Peers
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker.options import WorkerOptions

SITE_OF = {name: site or None for name, site in SITES.items()} | {"north": None, "south": None}


async def star(features: int = 9, **settings: Any) -> TaskModels:
    """The models of a run without relays."""
    options = run_options(settings=make_settings(**settings), strategy="central", workers=5)
    partitions = make_partitions(6, "squared", features=features)
    models: TaskModels = (await run_cluster(options, PLACEMENT, partitions))[1][0]
    return models


@pytest.mark.parametrize("strategy", ["relay", "uncoded", "central", "personal"])
async def test_models_are_those_of_a_star(strategy: str) -> None:
    options = run_options(settings=make_settings(rounds=3), strategy=strategy, workers=5)
    async with trees(options) as (cluster, tree):
        await grow(tree)
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
        await tree.tasks["north"]
    assert parts_of(await star(rounds=3), models, own=strategy == "personal")
    assert set(record.plan.placement.workers) == {"north", "south", "e"}
    assert record.plan.uplink_load == {"relay": Fraction(9, 2)}.get(strategy, 6)
    topology = Topology(PLACEMENT, {"north": ["a", "b"], "south": ["c", "d"]})
    links = report_tree(topology, record, {n: link_totals(r.below) for n, r in tree.relays.items()})
    assert {link["node"]: link["parent"] for link in links} == SITE_OF
    for way in ("up", "down"):
        assert [link[f"measured_{way}_load"] for link in links] == [link[f"{way}_load"] for link in links]
    # The server counts of a relay what the relay counts above itself; below, every update goes up once.
    assert record.ledger.workers()["north"][0] <= tree.relays["north"].up.workers()["north"][0]
    below = tree.relays["north"].below.kinds()["up", "uplink"][1]
    assert below == 3 * 3 * record.vector_bytes


@pytest.mark.parametrize(("update", "loss"), [("statistics", "squared"), ("newton", "logistic")])
async def test_more_than_models_comes_down_with_some_updates(update: str, loss: str) -> None:
    """Under `personal`, the server's results are longer than a model then."""
    settings = make_settings(rounds=4, update=update, loss=loss, dtype="float64")
    options = run_options(settings=settings, strategy="personal", workers=5)
    partitions = make_partitions(6, loss)
    async with trees(options, partitions=partitions) as (cluster, tree):
        await grow(tree)
        await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(train(partitions, settings).models, models, own=True)


async def test_what_workers_want_reaches_the_server() -> None:
    """A strategy that is not chosen yet follows from it; one that wants the contrary is refused alone."""
    options = run_options(settings=make_settings(rounds=2), strategy="auto", workers=5)
    async with trees(options) as (cluster, tree):
        await tree.relay("north", 2)
        await tree.relay("south", 2)
        for name in SITES:
            tree.worker(name, wants="own")
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert isinstance(record.plan, Plan)
    assert record.plan.strategy == "personal"
    assert parts_of(await star(rounds=2), models, own=True)


@pytest.mark.parametrize(
    ("strategy", "wants", "why"),
    [
        ("personal", "all", "cannot be all with --strategy personal"),
        ("relay", "own", "can be own with --strategy personal only"),
        ("relay", "none", "can be none with --update statistics only"),
    ],
)
async def test_a_worker_that_a_relay_cannot_give_what_it_wants_is_refused_alone(
    strategy: str, wants: str, why: str
) -> None:
    settings = make_settings(rounds=2, update="gradient")
    options = run_options(settings=settings, strategy=strategy, workers=5)
    async with trees(options) as (cluster, tree):
        await tree.relay("north", 2)
        await tree.relay("south", 2)
        tree.worker("a", wants=wants)
        with pytest.raises(PeerError, match=why):
            await tree.tasks["a"]
        for name in SITES:
            tree.worker(name)
        await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(await star(rounds=2), models, own=strategy == "personal")


async def test_a_worker_that_cannot_go_without_models_is_refused_once_updates_are_known() -> None:
    """The updates follow from what all workers declare."""
    settings = make_settings(rounds=2, update="auto", loss="logistic", dtype="float64")
    options = run_options(settings=settings, workers=5, rejoin_timeout=PATIENCE)
    partitions = make_partitions(6, "logistic")
    async with trees(options, partitions=partitions) as (cluster, tree):
        await tree.relay("north", 2)
        await tree.relay("south", 2)
        for name in SITES:
            tree.worker(name, wants="none" if name == "a" else "")
        with pytest.raises(PeerError, match="can be none with --update statistics only"):
            await tree.tasks["a"]
        tree.worker("a")
        await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(train(partitions, settings).models, models)


@pytest.mark.parametrize("strategy", ["relay", "personal"])
async def test_long_vectors_pass_range_by_range(strategy: str) -> None:
    options = run_options(settings=make_settings(rounds=2), strategy=strategy, workers=5)
    async with trees(options, features=60_000) as (cluster, tree):
        await grow(tree)
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(await star(60_000, rounds=2), models, own=strategy == "personal")
    # Each relay has a message for every range.
    entries = [each for each in record.ledger.entries() if (each.worker, each.kind) == ("north", "uplink")]
    assert sum(each.messages for each in entries) > 2 * 2


@pytest.mark.parametrize("strategy", ["relay", "personal"])
async def test_a_relay_may_be_behind_a_relay(strategy: str) -> None:
    options = run_options(settings=make_settings(rounds=2), strategy=strategy, workers=5)
    async with trees(options) as (cluster, tree):
        await tree.relay("outer", 3)
        await tree.relay("inner", 2, "outer")
        for name, parent in (("a", "inner"), ("b", "inner"), ("c", "outer"), ("d", ""), ("e", "")):
            tree.worker(name, parent)
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(await star(rounds=2), models, own=strategy == "personal")
    assert set(record.plan.placement.workers) == {"outer", "d", "e"}


@pytest.mark.parametrize("strategy", ["relay", "personal"])
@pytest.mark.parametrize("lost", [["a"], ["north", "south"]], ids=["worker", "relays"])
async def test_what_is_lost_comes_back(lost: list[str], strategy: str) -> None:
    options = run_options(
        settings=make_settings(rounds=9), strategy=strategy, workers=5, rejoin_timeout=PATIENCE
    )
    async with trees(options) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=3)
        await restart(tree, lost)
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(await star(rounds=9), models, own=strategy == "personal")
    assert len(record.rounds) == 9
    assert record.incidents


async def test_workers_of_a_relay_that_is_gone_come_back_through_another_address() -> None:
    options = run_options(settings=make_settings(rounds=9), workers=5, rejoin_timeout=PATIENCE)
    async with trees(options) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=3)
        await tree.stop("north")
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(await star(rounds=9), models)
    assert set(record.plan.placement.workers) == {"a", "b", "south", "e"}


async def test_a_worker_whose_relay_is_gone_at_the_end_gets_the_models_through_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server has all reports of the end when the relay is lost."""
    options = run_options(
        settings=make_settings(rounds=3), workers=5, rejoin_timeout=PATIENCE, silence_timeout=PATIENCE
    )
    hear, reported = Peers.hear, list[int]()
    async with trees(options) as (cluster, tree):

        async def lose(peers: Peers, answers: Any) -> Any:
            found = await hear(peers, answers)
            if any(isinstance(message, Done) for message in found.values()) and not reported:
                reported.append(len(found))
                await tree.stop("north")
                for name, parent in (("a", "south"), ("b", "")):
                    await tree.stop(name)
                    tree.worker(name, parent)
            return found

        monkeypatch.setattr(Peers, "hear", lose)
        await grow(tree)
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert reported == [3]
    assert parts_of(await star(rounds=3), models)
    assert len(record.rounds) == 3


async def test_workers_of_one_site_that_disagree_are_named() -> None:
    options = run_options(settings=make_settings(rounds=2), workers=5, rejoin_timeout=1.0)
    other = make_partitions(6, "squared", seed=1)
    async with trees(options) as (cluster, tree):
        await tree.relay("north", 2)
        tree.worker("a")
        tree.worker("b", stored=[other[1], other[2]])
        with pytest.raises(Exception, match="'p1' of worker 'b'") as refused:
            await tree.tasks["north"]
        assert not isinstance(refused.value, PeerError | DisagreementError)
        assert not cluster.server.done()


async def test_strategies_without_relays_refuse_them() -> None:
    settings = make_settings(rounds=2, update="gradient")
    options = run_options(settings=settings, strategy="linear", workers=5)
    async with trees(options) as (_, tree):
        await tree.relay("north", 1)
        tree.worker("a")
        with pytest.raises(PeerError, match="can have relays with the exact strategies only"):
            await tree.tasks["north"]
        with pytest.raises(PeerError, match="can have relays"):
            await tree.tasks["a"]


async def test_a_relay_takes_no_part_in_a_stream_of_jobs() -> None:
    async with asyncio.timeout(LIMIT), JobCluster() as cluster:
        with pytest.raises(UsageError, match="server must make one run, not a stream of jobs"):
            await Relay(RelayOptions(WorkerOptions("r"), 1), print).run([cluster.address], ("127.0.0.1", 0))


async def test_a_relay_gives_up_without_a_parent() -> None:
    options = RelayOptions(WorkerOptions("r", max_wait=0.0), 1)
    with pytest.raises(Exception, match="cannot reach a server"):
        await Relay(options, print).run([("127.0.0.1", 1)], ("127.0.0.1", 0))
