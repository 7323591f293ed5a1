"""Workers that want no models, or those of their own tasks only, in whole runs over TCP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from support.clusters import Cluster, run_cluster
from support.problems import make_partitions, make_settings
from support.problems import run_options as options

from asyncdmtl.errors import AsyncDMTLError, PeerError, UsageError
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.run_report import report_run

# Each partition is a task; c and d only help where they want nothing.
PARTITIONS = [replace(part, task=part.id) for part in make_partitions(4, "squared")]
IDS = [part.id for part in PARTITIONS]
PLACEMENT = Placement({"a": IDS[:2], "b": IDS[:2], "c": IDS[2:], "d": IDS[2:]}, IDS)
HELP = {"c": "none", "d": "none"}
SOLVED = make_settings(update="statistics", dtype="float64", strength=0.1)


@pytest.mark.parametrize(("strategy", "up", "down"), [("relay", 2, 4), ("central", 4, 4), ("uncoded", 4, 4)])
async def test_workers_that_want_nothing_are_sent_no_vectors(strategy: Any, up: int, down: int) -> None:
    twin = train(PARTITIONS, SOLVED).models
    record, models = await run_cluster(
        options(workers=4, strategy=strategy, settings=SOLVED), PLACEMENT, PARTITIONS, wants=HELP
    )
    for own in models[:2]:
        assert own.tasks == twin.tasks
        assert own.coef_.tobytes() == twin.coef_.tobytes()
        assert own.intercept_.tobytes() == twin.intercept_.tobytes()
    assert [own.tasks for own in models[2:]] == [(), ()]
    made = report_run(record)
    assert made["helpers"] == ["c", "d"]
    loads = [Fraction(made[part]["measured_load"]) for part in ("uplink", "downlink_wire")]
    assert loads == [up, down]
    received = record.ledger.total(lambda entry: entry.kind == "downlink" and entry.worker in ("c", "d"))
    assert received[0] == 0
    assert made["kernel_ledger_difference"] == {"up": 0, "down": 0}


async def test_under_personal_nobody_is_sent_models_that_only_helpers_store() -> None:
    twin = train(PARTITIONS, SOLVED).models
    record, models = await run_cluster(
        options(workers=4, strategy="personal", settings=SOLVED), PLACEMENT, PARTITIONS, wants=HELP
    )
    assert [own.tasks for own in models] == [tuple(IDS[:2])] * 2 + [()] * 2
    assert models[0].coef_.tobytes() == twin.of([0, 1]).coef_.tobytes()
    made = report_run(record)
    assert [made["downlink_broadcast"][key] for key in ("load", "bound", "measured_load")] == ["2"] * 3
    assert made["downlink_wire"]["measured_load"] == "4"


async def test_auto_serves_workers_that_want_the_models_of_their_own_tasks_by_personal() -> None:
    settings = make_settings(dtype="float64")
    twin = train(PARTITIONS, settings).models
    asked = {"a": "own", "c": "own"}
    record, models = await run_cluster(
        options(workers=4, strategy="auto", settings=settings), PLACEMENT, PARTITIONS, wants=asked
    )
    assert [candidate.strategy for candidate in record.candidates] == ["personal"]
    assert models[2].tasks == tuple(IDS[2:])
    assert models[2].coef_.tobytes() == twin.of([2, 3]).coef_.tobytes()


@pytest.mark.parametrize(
    ("strategy", "update", "wants", "rule"),
    [
        ("relay", "gradient", "none", "with --update statistics only"),
        ("relay", "auto", "none", "with --update statistics only"),
        ("relay", "statistics", "own", "with --strategy personal only"),
    ],
)
async def test_a_worker_that_cannot_have_its_wish_is_told_before_any_training(
    strategy: Any, update: str, wants: str, rule: str
) -> None:
    loss = "logistic" if update == "auto" else "squared"
    partitions = [replace(part, task=part.id) for part in make_partitions(4, loss)]
    settings = make_settings(update=update, loss=loss)
    run = options(workers=2, strategy=strategy, settings=settings, join_timeout=1.0, rejoin_timeout=0.0)
    async with asyncio.timeout(30.0), Cluster(run) as cluster:
        others = cluster.join("a", partitions[:3])
        with pytest.raises(PeerError, match=rule):
            await cluster.join("d", partitions[3:], wants=wants)
        with pytest.raises(AsyncDMTLError):
            await cluster.server
        with pytest.raises(PeerError):
            await others


async def test_a_run_in_which_nobody_wants_models_ends_with_that_reason() -> None:
    run = options(workers=4, strategy="relay", settings=SOLVED, rejoin_timeout=0.0)
    with pytest.raises(UsageError, match="cannot be none at every worker"):
        await run_cluster(run, PLACEMENT, PARTITIONS, wants=dict.fromkeys("abcd", "none"))
