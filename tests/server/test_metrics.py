from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clusters import Cluster, stored_at
from support.metrics import samples
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

import asyncdmtl
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.events import (
    Checkpointed,
    HealthListening,
    IncidentNoted,
    Joined,
    Left,
    Listening,
    LockedOut,
    MeasuredSpeed,
    Planned,
    Refused,
    Resumed,
    ServerEvent,
    SpeedsMeasured,
    Waiting,
)
from asyncdmtl.server.metrics import Metrics

LISTENING = Listening("r1", "127.0.0.1", 7700)


def test_events_are_counted() -> None:
    metrics = Metrics(9, Ledger())
    events: list[ServerEvent] = [
        LISTENING,
        Refused("?", "nonsense"),
        Joined("w0", 1),
        Joined("w1", 1),
        Left("w1", "before the start"),
        Joined("w1", 1, True),
        Joined("w2", 1),
        LockedOut("name", "w9", 1.0),
        HealthListening("127.0.0.1", 9),
    ]
    for event in events:
        metrics.note(event)
    found = samples(metrics)
    assert {name: found[name,] for name in ("workers", "joined_total", "reconnects_total")} == {
        "workers": 3,
        "joined_total": 4,
        "reconnects_total": 1,
    }
    assert (found["refused_total",], found["lockouts_total",], found["ready",]) == (1, 1, 1)
    metrics.note(Planned(0, 4, ("w0", "w1", "w2"), "relay", "1", "1", "1", "1", "3", "3", 1, (), ""))
    assert samples(metrics)["rounds_done",] == 4
    for kind, worker in (("WaitError", "w0"), ("DisagreementError", "w1"), ("WaitError", "w2")):
        metrics.note(IncidentNoted(4, worker, kind, "…"))
    found = samples(metrics)
    assert found["incidents_total", "WaitError"] == 2
    assert found["incidents_total", "DisagreementError"] == 1
    # A worker that disagrees is still there.
    assert metrics.workers == {"w1"}
    metrics.note(Waiting(4, ("p0",), 60.0))
    assert (metrics.phase, metrics.ready) == ("waiting", True)


def test_a_resumed_run_goes_on_counting_where_it_was() -> None:
    metrics = Metrics(9, Ledger())
    metrics.note(LISTENING)
    metrics.note(Resumed("r1", 5))
    assert samples(metrics)["rounds_done",] == 5
    metrics.note(Checkpointed(6, 10, 0.1))
    found = samples(metrics)
    assert (found["checkpoints_total",], found["checkpoint_round",]) == (1, 6)


async def test_a_run_with_a_lost_worker_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compute, leave, loop = CodedWorkerSide.compute, asyncio.Event(), asyncio.get_running_loop()

    def leaving(side: CodedWorkerSide) -> Any:
        if side.plan.placement.workers[side.worker] == "w1":
            loop.call_soon_threadsafe(leave.set)
        return compute(side)

    monkeypatch.setattr(CodedWorkerSide, "compute", leaving)
    partitions = make_partitions(6, "squared")
    options = run_options(settings=make_settings(rounds=4), workers=6)
    async with Cluster(options) as cluster:
        own = stored_at(HOMOGENEOUS, partitions)
        workers = {name: cluster.join(name, parts) for name, parts in own.items()}
        await leave.wait()
        workers.pop("w1").cancel()
        record = await cluster.server
        await asyncio.gather(*workers.values())
    metrics = Metrics(4, record.ledger)
    for event in cluster.events:
        metrics.note(event)
    found = samples(metrics)
    assert found["rounds_done",] == found["rounds_limit",] == found["round_seconds_count",] == 4
    assert found["round_seconds_sum",] == pytest.approx(sum(entry.seconds for entry in record.rounds))
    assert found["objective",] == record.rounds[-1].objective
    assert found["workers",] == 5
    assert sum(value for key, value in found.items() if key[0] == "incidents_total") == 1
    for direction in ("up", "down"):
        payload, framing = record.ledger.total(lambda entry, d=direction: entry.direction == d)  # type: ignore[misc]
        for part, expected in (("payload", payload), ("framing", framing)):
            shown = sum(v for k, v in found.items() if k[:2] == ("bytes_total", direction) and k[3] == part)
            assert shown == expected
    assert found["bytes_total", "up", "uplink", "payload"] > 0


def test_each_worker_has_its_bytes_presence_and_incidents() -> None:
    ledger = Ledger()
    metrics = Metrics(9, ledger)
    ledger.count("w0", "up", "upload", 0, payload=40, size=50)
    ledger.count("w1", "down", "rows", 0, payload=0, size=7)
    ledger.add("refused", "up", "join", 5)
    for name in ("w0", "w1"):
        metrics.note(Joined(name, 1))
    metrics.note(IncidentNoted(0, "w1", "WaitError", "silent"))
    metrics.note(IncidentNoted(0, "", "PlanError", "no plan"))
    found = samples(metrics)
    assert found["worker_bytes_total", "up", "w0"] == 50
    assert found["worker_bytes_total", "down", "w1"] == 7
    assert (found["worker_up", "w0"], found["worker_up", "w1"]) == (1, 0)
    assert ("worker_up", "refused") not in found
    assert found["worker_incidents_total", "w1"] == 1
    assert ("worker_incidents_total", "") not in found


def test_measured_speeds_are_gauges() -> None:
    metrics = Metrics(9, Ledger())
    metrics.note(SpeedsMeasured(5, {"w0": MeasuredSpeed(0.5, 9.0, 90.0)}))
    found = samples(metrics)
    assert found["worker_computing_seconds", "w0"] == 0.5
    assert found["link_mbits_per_second", "up", "w0"] == 9.0
    assert found["link_mbits_per_second", "down", "w0"] == 90.0


def test_the_dashboard_of_grafana_asks_for_metrics_that_exist() -> None:
    file = Path(asyncdmtl.__file__).parent / "docs" / "grafana.json"
    ledger = Ledger()
    metrics = Metrics(9, ledger)
    ledger.count("w0", "up", "upload", 0, payload=40, size=50)
    metrics.note(Joined("w0", 1))
    metrics.note(IncidentNoted(0, "w0", "WaitError", "silent"))
    exported = {f"asyncdmtl_{name}" for name, *_ in samples(metrics) if not name.startswith("process_")}
    labels = {
        name
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        for name in sample.labels
    }
    panels = json.loads(file.read_text(encoding="utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(asked) >= 8
    for expression in asked:
        names = set(re.findall(r"asyncdmtl_\w+", expression))
        assert names, expression
        assert names <= exported, expression
        for group in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(re.split(", ?", group)) <= labels | {"instance"}, expression
    assert len({panel["id"] for panel in panels}) == len(panels)
