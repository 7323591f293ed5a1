"""Runs with relays whose server is resumed, or whose links are cut."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from support.clusters import Cluster
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy
from support.trees import PATIENCE, SITES, grow, parts_of, trees

from asyncdmtl.learning.training import train
from asyncdmtl.server.records import RoundRecord

SETTINGS = make_settings(rounds=30)
TWIN = train(make_partitions(6, "squared", features=9), SETTINGS).models


@pytest.mark.parametrize("strategy", ["relay", "central", "personal"])
async def test_relays_wait_for_a_server_that_will_be_resumed(tmp_path: Path, strategy: str) -> None:
    chosen = run_options(
        settings=SETTINGS, strategy=strategy, workers=5, checkpoint=tmp_path, checkpoint_every=4,
        join_timeout=PATIENCE, rejoin_timeout=PATIENCE,
    )  # fmt: skip
    async with trees(chosen) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=9)
        cluster.server.cancel()
        await asyncio.wait([cluster.server])
        again = Cluster(replace(chosen, resume=True))
        again.server = cluster.server = asyncio.create_task(again.instance.run(*cluster.address))
        record = await again.server
        models = [await tree.tasks[name] for name in SITES]
        await tree.tasks["north"]
    assert parts_of(TWIN, models, own=strategy == "personal")
    assert [each.round for each in record.rounds] == list(range(30))
    assert set(record.plan.placement.workers) == {"north", "south", "e"}


async def test_a_relay_whose_link_is_cut_goes_on_with_its_workers() -> None:
    options = run_options(settings=SETTINGS, workers=5, rejoin_timeout=PATIENCE, silence_timeout=PATIENCE)
    async with trees(options) as (cluster, tree), Proxy(cluster.address).running() as proxy:
        tree.add_address("thin", proxy.address)
        await tree.relay("north", 2, "thin")
        await tree.relay("south", 2)
        for name in SITES:
            tree.worker(name)
        for round_ in (3, 9):
            await cluster.event(RoundRecord, round=round_)
            proxy.cut()
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert parts_of(TWIN, models)
    assert proxy.connected >= 2
    assert "north" in {incident.worker for incident in record.incidents}
