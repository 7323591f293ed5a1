"""Workers send sums of some partitions of a task: the models are those of one process, to the last bit."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from support.clusters import Cluster, run_cluster, stored_at
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.net import event_loop
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.events import IncidentNoted, Joined

# Two tasks of four partitions; each worker stores two consecutive ones of each.
PLACEMENT = Placement.cyclic(4, 8, 2)
PARTITIONS = [replace(p, task=f"t{n // 4}") for n, p in enumerate(make_partitions(8, "squared", features=4))]


@pytest.mark.parametrize(
    ("update", "strategy", "dtype"),
    [
        ("gradient", "relay", "float32"),
        ("gradient", "central", "float64"),
        ("model", "personal", "float32"),
        ("statistics", "relay", "float64"),
        ("statistics", "central", "float64"),
        ("newton", "relay", "float64"),
        ("quasi-newton", "personal", "float64"),
    ],
)
async def test_sums_of_any_update_lead_to_the_twins_models(update: str, strategy: str, dtype: str) -> None:
    more: dict[str, Any] = {"accelerated": False, "epochs": 2} if update == "model" else {}
    settings = make_settings(update=update, dtype=dtype, **more)
    options = run_options(strategy=strategy, settings=settings, workers=4)
    record, models = await run_cluster(options, PLACEMENT, PARTITIONS)
    expected = train(PARTITIONS, settings).models
    for found in models:
        assert found.coef_.tobytes() == expected.coef_.tobytes()
    made = report_run(record)
    assert made["sums"] == [["p0", "p1"], ["p2", "p3"], ["p4", "p5"], ["p6", "p7"]]
    assert made["uplink"]["measured_load"] == made["uplink"]["load"] == made["uplink"]["bound"] == "4"


@pytest.mark.parametrize("strategy", ["relay", "central", "personal"])
async def test_plans_with_other_sums_lead_to_the_same_models(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """One worker is lost, and another comes late, so that sums differ from plan to plan."""
    monkeypatch.setattr(event_loop, "QUICK_SECONDS", 0.0)
    settings = make_settings(rounds=12, dtype="float64")
    twin = train(PARTITIONS, settings)
    own = stored_at(PLACEMENT, PARTITIONS)
    compute, loop = CodedWorkerSide.compute, asyncio.get_running_loop()
    release, plans = threading.Event(), set[tuple[object, ...]]()
    workers: dict[str, asyncio.Task[TaskModels]] = {}
    rounds = dict.fromkeys(own, 0)

    def disturbed(side: CodedWorkerSide) -> Upload:
        assert isinstance(side.plan, Plan)
        plans.add((side.plan.aggregated, side.plan.sums))
        name = side.plan.placement.workers[side.worker]
        rounds[name] = rounds.get(name, 0) + 1
        if name == "w1" and rounds[name] == 3:
            loop.call_soon_threadsafe(workers["w1"].cancel)
        if name == "w0" and rounds[name] == 6:
            release.wait(60.0)
        return compute(side)

    monkeypatch.setattr(CodedWorkerSide, "compute", disturbed)
    async with Cluster(run_options(strategy=strategy, settings=settings, workers=4)) as cluster:
        for name, partitions in own.items():
            workers[name] = cluster.join(name, partitions)
        await cluster.event(IncidentNoted, worker="w1")
        # It stores the first task whole.
        workers["late"] = cluster.join("late", PARTITIONS[:4])
        await cluster.event(Joined, worker="late")
        while not cluster.instance._membership.members["late"].ready:
            await cluster.instance._membership.change(None)
        release.set()
        record = await cluster.server
        models = [await task for name, task in workers.items() if name != "w1"]
    assert len(plans) >= 3
    assert record.plan.placement.workers == ("late", "w0", "w2", "w3")
    assert [entry.objective for entry in record.rounds] == list(twin.objectives)
    for found in models:
        expected = twin.models.of([twin.models.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()
